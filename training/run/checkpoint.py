"""What a run needs to go on after it was stopped: written beside and renamed, so that a reader finds it whole.

OUT.work/
  checkpoint.pt     weights, optimiser, moving average, random state, the step
  best.safetensors  the weights that did best on the validation data
  pictures/         decoded images, see `training.data.image_cache`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lookalike.errors import ConfigInvalid

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state; what stood there before stays until the new one is whole."""
    part = folder / f"{CHECKPOINT}.part"
    torch.save(state, part)
    part.replace(folder / CHECKPOINT)


def load_checkpoint(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The state, None where there is none.

    Args:
        folder: the work folder.
        settings: of this run; a state of another configuration is refused.

    Raises:
        ConfigInvalid: the state belongs to another configuration, or can't be read.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged file raises nearly anything
        raise ConfigInvalid(f"{path} can't be read ({error}); remove {folder} to start over") from error
    if changed := _changed(json.loads(state["settings"]), json.loads(json.dumps(settings))):
        raise ConfigInvalid(
            f"{folder} holds a run of another configuration or data ({'; '.join(changed[:3])}): remove it to start "
            "over, or use another --out"
        )
    return state


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two nested tables, in words.

    >>> _changed({"data": "0a1b", "settings": {"seed": 0}}, {"data": "0a1b", "settings": {"seed": 1}})
    ['settings.seed is 0 there and 1 here']
    """
    then, here = _flat(before), _flat(now)
    return [
        f"{key} is {then.get(key)!r} there and {here.get(key)!r} here"
        for key in sorted(then.keys() | here.keys())
        if then.get(key) != here.get(key)
    ]


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def trim_metrics(path: Path, step: int) -> None:
    """Drops the lines of steps that come after a checkpoint: they will be written again."""
    if not path.is_file():
        return
    lines = path.read_text("utf-8").splitlines()
    path.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= step), "utf-8")


def _step_of(line: str) -> float:
    """The step that a line tells of; infinite where a kill or a full disk cut the line short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
