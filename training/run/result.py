"""The result of a run, and the text files of the exported folder: model card, report, configuration, metrics."""

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
from training.validation.promotion import CandidateScore

CARD_FILE, REPORT_FILE, CONFIG_FILE, METRICS_FILE = "README.md", "report.json", "config.toml", "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        out: the encoder's folder.
        promoted: whether the encoder was written; False where the base is better.
        figure: name of what was measured on validation images.
        base: figures of the encoder that training started from.
        trained: figures of the best weights.
        seconds: of the whole run, with the earlier parts of a resumed run.
        steps: taken.
        warnings: of the run, in order.
    """

    out: str
    promoted: bool
    figure: str
    base: CandidateScore
    trained: CandidateScore
    seconds: float
    steps: int
    warnings: tuple[str, ...]


def run_report(result: TrainingResult, settings: Settings, data: TrainingData) -> dict[str, Any]:
    """Return the run's inputs and results, JSON-ready."""
    unseen = data.unseen.examples if data.unseen else []
    return {
        "base": settings.base.encoder,
        "objective": settings.objective.name,
        "sources": [Path(source).name for source in settings.data.train],
        "training_pictures": len(data.examples),
        "rejected": data.rejected,
        "classes": 0 if data.labels is None else len(np.unique(data.labels)),
        "validation_pictures": len(data.seen.pixels),
        "unseen_classes": sorted({example.label for example in unseen if example.label}),
        "figure": result.figure,
        "before": asdict(result.base),
        "after": asdict(result.trained),
        "settings": settings.model_dump(exclude={"data": {"train", "validation"}}),
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "seed": settings.seed,
        "warnings": list(result.warnings),
    }


def text_files(report: Mapping[str, Any], settings: Settings, metrics: Path) -> dict[str, str]:
    """Return the text files that are exported beside the weights, by name.

    Args:
        report: `run_report`, with `name`, `command`, `by_step`, `shares` and `evaluation` added.
        settings: of the run.
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
    """Return `config.toml`: the configuration as trained, with changes by the command line and the data's size.

    The report names the sources. TOML's numbers, strings and arrays are written as JSON's.
    """
    tables = settings.model_dump(exclude={"data": {"train", "validation"}})
    flat = {name: value for name, value in tables.items() if not isinstance(value, dict)}
    parts = ["# As it was trained; --data names the images.", *_keys(flat)]
    for name, table in tables.items():
        if isinstance(table, dict):
            parts += ["", f"[{name}]", *_keys(table)]
    return "\n".join(parts) + "\n"


def _keys(table: Mapping[str, Any]) -> list[str]:
    # Not escaped: JSON escapes characters beyond 16 bits as surrogate pairs, which TOML rejects.
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]


def model_card(report: Mapping[str, Any], config: str) -> str:
    """Return the model card, in Markdown: origin, use, figures and limits. `report` is the content of `report.json`."""
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
        f"| {report['figure']} on held-out images | of trained classes | of unseen classes |",
        "| --- | ---: | ---: |",
        f"| {report['base']} | {_table_cells(report['before'])} |",
        f"| {report['name']} | {_table_cells(report['after'])} |",
        "",
        *_unseen_classes(report.get("unseen_classes", [])),
        f"Made by: `{report['command']}`, {report['steps']:,} steps, {report['seconds'] / 60:.1f} minutes, seed "
        f"{report['seed']}; torch {torch.__version__}. Figures are in `{REPORT_FILE}`, losses in `{METRICS_FILE}`.",
        "",
        "Limits: it was trained on images of these sources; measure it on other kinds of images first "
        "(`lookalike evaluate`). The licences of the base weights and of the training images apply.",
        "",
        "```toml",
        config.strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _unseen_classes(classes: Sequence[str]) -> list[str]:
    """Return a line with the classes that were held out whole, which `lookalike evaluate --unseen` takes."""
    return [f"Unseen classes: {', '.join(classes)}.", ""] if classes else []


def _table_cells(score: Mapping[str, Any]) -> str:
    unseen = score["unseen"]
    return f"{score['seen']:.4f} | " + ("" if unseen is None else f"{unseen:.4f}")


def as_json(report: Mapping[str, Any]) -> str:
    """Return the text of `report.json`."""
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"
