"""What came of a run, and what the exported folder tells of it: report, model card, configuration, losses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data.dataset import TrainingData
from training.settings import Settings
from training.validation.promotion import Standing

CARD_FILE, REPORT_FILE, CONFIG_FILE, METRICS_FILE = "README.md", "report.json", "config.toml", "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Attributes:
        out: the encoder's folder.
        promoted: whether it was written; False where the base is better.
        figure: what was measured on held-out images.
        base: of the encoder that training started from.
        trained: of the best weights.
        seconds: of the whole run, earlier parts of a resumed one included.
        steps: taken.
        warnings: said on the way.
    """

    out: str
    promoted: bool
    figure: str
    base: Standing
    trained: Standing
    seconds: float
    steps: int
    warnings: tuple[str, ...]


def run_report(result: Result, settings: Settings, data: TrainingData) -> dict[str, Any]:
    """What a run was and what it reached, JSON-ready."""
    return {
        "base": settings.base.encoder,
        "objective": settings.objective.name,
        "sources": [Path(source).name for source in settings.data.train],
        "training_pictures": len(data.examples),
        "rejected": data.rejected,
        "classes": 0 if data.labels is None else len(np.unique(data.labels)),
        "validation_pictures": len(data.seen.pixels),
        "unseen_classes": sorted({example.label for example in data.unseen_examples if example.label}),
        "figure": result.figure,
        "before": asdict(result.base),
        "after": asdict(result.trained),
        "settings": settings.model_dump(exclude={"data": {"train", "validation"}}),
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "seed": settings.seed,
        "warnings": list(result.warnings),
    }


def records(report: Mapping[str, Any], settings: Settings, metrics: Path) -> dict[str, str]:
    """The files that lie beside the weights: name -> text.

    Args:
        report: `run_report`, with `name`, `command`, `by_step`, `shares` and `evaluation` beside.
        settings: as it was trained by.
        metrics: the run's JSON lines.
    """
    config = as_toml(settings)
    return {
        CARD_FILE: model_card(report, config),
        REPORT_FILE: as_json(report),
        CONFIG_FILE: config,
        METRICS_FILE: metrics.read_text("utf-8"),
    }


def as_toml(settings: Settings) -> str:
    """`config.toml`: what was trained by, everything that the command line and the data's bounds changed included.

    Sources are named by the report; TOML's numbers, strings and arrays of them are JSON's.
    """
    tables = settings.model_dump(exclude={"data": {"train", "validation"}})
    flat = {name: value for name, value in tables.items() if not isinstance(value, dict)}
    parts = ["# As it was trained; --data names the images.", *_keys(flat)]
    for name, table in tables.items():
        if isinstance(table, dict):
            parts += ["", f"[{name}]", *_keys(table)]
    return "\n".join(parts) + "\n"


def _keys(table: Mapping[str, Any]) -> list[str]:
    # As they are, not escaped: JSON writes what lies beyond 16 bits as two halves, which TOML refuses.
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]


def model_card(report: Mapping[str, Any], config: str) -> str:
    """A page for people: what it is, how it was made, how good it is. `report` is what `report.json` holds."""
    lines = [
        f"# {report['name']}",
        "",
        f"An encoder for `lookalike`, trained from `{report['base']}` with the objective `{report['objective']}` on "
        f"{report['training_pictures']:,} images"
        + (f" of {report['classes']:,} classes" if report.get("classes") else "")
        + f" ({', '.join(report['sources'])}).",
        "",
        f"Use it: `lookalike index PICTURES --encoder folder:{report['name']}`.",
        "",
        f"| {report['figure']} on held-out images | of trained classes | of classes it never saw |",
        "| --- | ---: | ---: |",
        f"| {report['base']} | {_figures(report['before'])} |",
        f"| {report['name']} | {_figures(report['after'])} |",
        "",
        *_unseen(report.get("unseen_classes", [])),
        f"Made by: `{report['command']}`, {report['steps']:,} steps, {report['seconds'] / 60:.1f} minutes, seed "
        f"{report['seed']}; torch {torch.__version__}. Figures are in `{REPORT_FILE}`, losses in `{METRICS_FILE}`.",
        "",
        "Limits: it knows what its training images show; on other kinds of images measure it first "
        "(`lookalike evaluate`). The licences of the base weights and of the training images apply.",
        "",
        "```toml",
        config.strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _unseen(classes: Sequence[str]) -> list[str]:
    """Which classes were held out whole, so that they can be named to `lookalike evaluate --unseen`."""
    return [f"Classes it never saw: {', '.join(classes)}.", ""] if classes else []


def _figures(standing: Mapping[str, Any]) -> str:
    unseen = standing["unseen"]
    return f"{standing['seen']:.4f} | " + ("" if unseen is None else f"{unseen:.4f}")


def as_json(report: Mapping[str, Any]) -> str:
    """`report.json`."""
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"
