"""Export of a trained model to a folder that `folder:PATH` loads, written to a temporary folder and renamed.

`lookalike.encoders.exported.format` reads the folder and describes its files.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from lookalike.calibration import Calibration, write_calibration
from lookalike.encoders.engines.cache import sha256_file
from lookalike.encoders.exported.format import CALIBRATION_FILE, ENCODER_FILE, WEIGHTS_FILE, ExportedEncoder
from lookalike.errors import SourceError
from training.network.trainable import Trainable


def export_encoder(
    out: Path,
    model: Trainable,
    weights: Mapping[str, Tensor],
    *,
    base: str,
    extra: Mapping[str, str],
    calibration: Calibration | None = None,
    temperature: float | None = None,
) -> None:
    """Write the folder; an older encoder there is replaced once the new one is complete.

    Args:
        out: the folder.
        model: its architecture and preprocessing are written.
        weights: `image.*` and `text.*`, as `TrainingLoop.weights` returns them.
        base: name of the encoder that training started from.
        extra: further files' names and texts: model card, report, configuration, metrics.
        calibration: of pairs, where it was measured.
        temperature: of the loss over texts, where there is one.

    Raises:
        SourceError: `out` exists and is no exported encoder.
    """
    require_replaceable(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in without_unused_tower(weights).items()}
    safetensors.torch.save_file(tensors, part / WEIGHTS_FILE)
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
        temperature=temperature,
    )
    (part / ENCODER_FILE).write_text(exported.to_json(), "utf-8")
    shutil.copymode(part / ENCODER_FILE, part / WEIGHTS_FILE)  # safetensors makes its files unreadable for other users
    for name, text in extra.items():
        (part / name).write_text(text, "utf-8")
    if calibration is not None:
        write_calibration(calibration, part / CALIBRATION_FILE)
    _replace(part, out)


def require_replaceable(out: Path) -> None:
    """Check that writing to `out` overwrites nothing but an exported encoder.

    Raises:
        SourceError: `out` is a file, or a folder of other things.
    """
    if out.is_file():
        raise SourceError(f"{out} is a file; an encoder is a folder: name another with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / ENCODER_FILE).is_file():
        raise SourceError(f"{out} holds other files than an encoder's; name a new or empty folder with --out")


def without_unused_tower(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without the visual half that CLIP's text tower includes but does not use."""
    return {name: value for name, value in weights.items() if not (name.startswith("text.") and ".visual." in name)}


def _replace(part: Path, out: Path) -> None:
    if out.exists():
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        part.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    else:
        part.rename(out)
