"""Weights of a trained encoder -> its towers: the very modules that were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import nn

from lookalike.encoders.exported.format import ENCODER_FILE, WEIGHTS_FILE, ExportedEncoder
from lookalike.encoders.families import model_family
from lookalike.errors import WeightsInvalid


def load_tower(folder: Path, exported: ExportedEncoder, side: Literal["image", "text"]) -> nn.Module:
    """Return one tower with its weights, in eval mode, float32, on the CPU.

    Raises:
        WeightsInvalid: the weights do not fit the architecture.
    """
    try:
        towers = model_family(exported.architecture.family).build_towers(exported.architecture, exported.preprocessing)
        tensors = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # what model libraries raise for a name or a width that makes no sense is theirs
        reason = " ".join(str(error).split())[:200]
        raise WeightsInvalid(f"{folder / ENCODER_FILE} describes no model that can be built: {reason}") from error
    tower = towers.image if side == "image" else towers.text
    if tower is None:
        raise WeightsInvalid(f"{folder} has no text tower")
    prefix = f"{side}."
    own: dict[str, Any] = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        missing, unknown = tower.load_state_dict(own, strict=False)
    except RuntimeError as error:  # what torch raises for misshapen tensors
        reason = " ".join(str(error).split())[:200]
        raise WeightsInvalid(f"{folder / WEIGHTS_FILE} does not fit its architecture: {reason}") from error
    # CLIP's text tower is cut from the whole model and carries the image tower along, which it never uses.
    if unknown or (missing := [name for name in missing if not (side == "text" and ".visual." in f".{name}")]):
        names = ", ".join([*unknown, *missing][:3])
        raise WeightsInvalid(f"{folder / WEIGHTS_FILE} does not fit its architecture: {names}")
    return tower.eval()
