"""A trained model -> a folder that `folder:PATH` loads, written beside and renamed.

Its reader is `retrieval.encoders.folder_model`, which says what each file holds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from retrieval.calibration import Calibration, write_calibration
from retrieval.encoders.engines.cache import sha256_file
from retrieval.encoders.folder_model import CALIBRATION_FILE, ENCODER_FILE, WEIGHTS_FILE, ExportedEncoder
from retrieval.errors import SourceError
from training.model import Trainable
from training.settings import Settings

CARD_FILE, REPORT_FILE, CONFIG_FILE, METRICS_FILE = "README.md", "report.json", "config.toml", "metrics.jsonl"


def export_encoder(
    out: Path,
    model: Trainable,
    weights: Mapping[str, Tensor],
    *,
    base: str,
    extra: Mapping[str, str],
    calibration: Calibration | None = None,
) -> None:
    """Writes the folder; an encoder that stood there is replaced once the new one is whole.

    Args:
        out: the folder.
        model: whose architecture and preprocessing it has.
        weights: `image.*` and `text.*`, as `Loop.weights` gives them.
        base: name of the encoder that training started from.
        extra: further files' names and texts: model card, report, configuration, metrics.
        calibration: of its pairs, where it was measured.

    Raises:
        SourceError: something stands at `out` that is no exported encoder.
    """
    require_free(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    own = {name: value.detach().cpu().contiguous() for name, value in unshared(weights).items()}
    safetensors.torch.save_file(own, part / WEIGHTS_FILE)
    exported = ExportedEncoder(
        name=out.name,
        base=base,
        dim=model.dim,
        architecture=model.architecture,
        preprocessing=model.preprocessing,
        context=model.context,
        end=model.end,
        end_id=model.end_id,
        weights=sha256_file(part / WEIGHTS_FILE),
    )
    (part / ENCODER_FILE).write_text(exported.to_json(), "utf-8")
    shutil.copymode(part / ENCODER_FILE, part / WEIGHTS_FILE)  # safetensors keeps others from reading its files
    for name, text in extra.items():
        (part / name).write_text(text, "utf-8")
    if calibration is not None:
        write_calibration(calibration, part / CALIBRATION_FILE)
    _replace(part, out)


def require_free(out: Path) -> None:
    """Refuses to write over anything but an exported encoder.

    Raises:
        SourceError: `out` is a file, or a folder of other things.
    """
    if out.is_file():
        raise SourceError(f"{out} is a file; an encoder is a folder: name another with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / ENCODER_FILE).is_file():
        raise SourceError(f"{out} holds other files than an encoder's; name a new or empty folder with --out")


def unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what the text tower only carries along: CLIP's text half is cut from the whole model."""
    return {name: value for name, value in weights.items() if not (name.startswith("text.") and ".visual." in name)}


def as_toml(settings: Settings) -> str:
    """`config.toml`: what was trained by, everything that the command line and the data's bounds changed included.

    Sources are named by the report; TOML's numbers, strings and arrays of them are JSON's.
    """
    tables = settings.model_dump(exclude={"data": {"train", "validation"}})
    flat = {name: value for name, value in tables.items() if not isinstance(value, dict)}
    parts = ["# As it was trained; --data names the pictures.", *_keys(flat)]
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
        f"{report['training_pictures']:,} pictures"
        + (f" of {report['classes']:,} classes" if report.get("classes") else "")
        + f" ({', '.join(report['sources'])}).",
        "",
        f"Use it: `lookalike index PICTURES --encoder folder:{report['name']}`.",
        "",
        f"| {report['figure']} on held-out pictures | of trained classes | of classes it never saw |",
        "| --- | ---: | ---: |",
        f"| {report['base']} | {_figures(report['before'])} |",
        f"| {report['name']} | {_figures(report['after'])} |",
        "",
        *_unseen(report.get("unseen_classes", [])),
        f"Made by: `{report['command']}`, {report['steps']:,} steps, {report['seconds'] / 60:.1f} minutes, seed "
        f"{report['seed']}; torch {torch.__version__}. Figures are in `{REPORT_FILE}`, losses in `{METRICS_FILE}`.",
        "",
        "Limits: it knows what its training pictures show; on other kinds of pictures measure it first "
        "(`lookalike evaluate`). The licences of the base weights and of the training pictures apply.",
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


def _replace(part: Path, out: Path) -> None:
    if out.exists():
        grave = out.with_name(f".{out.name}.old")
        shutil.rmtree(grave, ignore_errors=True)
        out.rename(grave)
        part.rename(out)
        shutil.rmtree(grave, ignore_errors=True)
    else:
        part.rename(out)
