"""The checkpoint of a run, from which a stopped run resumes; written to a temporary file and renamed.

OUT.work/
  checkpoint.pt     weights, optimizer, moving average, random state, the step
  best.safetensors  the weights with the best validation figure
  pictures/         decoded training images, see `training.data.image_cache`
  validation/       decoded validation images of trained classes
  unseen/           decoded validation images of classes that are held out whole
  metrics.jsonl     figures of every step
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lookalike.errors import ConfigInvalid

CHECKPOINT_FILE = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the state; the previous one stays until the new one is complete."""
    part = folder / f"{CHECKPOINT_FILE}.part"
    torch.save(state, part)
    part.replace(folder / CHECKPOINT_FILE)


def load_checkpoint(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the saved state, None where there is none.

    Args:
        folder: the work folder.
        settings: of this run; a state of another configuration is rejected.

    Raises:
        ConfigInvalid: the state belongs to another configuration, or can't be read.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged file raises nearly any exception
        raise ConfigInvalid(f"{path} can't be read ({error}); remove {folder} to start over") from error
    if differences := _differences(json.loads(state["settings"]), json.loads(json.dumps(settings))):
        raise ConfigInvalid(
            f"{folder} holds a run of another configuration or data ({'; '.join(differences[:3])}): remove it to "
            "start over, or use another --out"
        )
    return state


def _differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Describe the differences between two nested tables, without the digests of the data.

    >>> _differences({"data": "0a1b", "settings": {"seed": 0}}, {"data": "0a1b", "settings": {"seed": 1}})
    ['settings.seed is 0 there and 1 here']
    >>> _differences({"data": "0a1b"}, {"data": "2c3d"})
    ['the images or their split differ']
    """
    saved_values, current_values = _flatten(saved), _flatten(current)
    return [
        "the images or their split differ"
        if key == "data"
        else f"{key} is {saved_values.get(key)!r} there and {current_values.get(key)!r} here"
        for key in sorted(saved_values.keys() | current_values.keys())
        if saved_values.get(key) != current_values.get(key)
    ]


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def trim_metrics(path: Path, step: int) -> None:
    """Drop the lines of steps after a checkpoint: these steps are taken again."""
    if not path.is_file():
        return
    lines = path.read_text("utf-8").splitlines()
    path.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= step), "utf-8")


def _step_of(line: str) -> float:
    """Return a line's step; infinite where a kill or a full disk cut the line short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
