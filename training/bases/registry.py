"""Base encoders by name: `load_base` returns the towers that training starts from.

To add one, write a loader that returns a `Trainable` and add it to `load_base`; for training to go on from what it
exported, add its tokenizer and traits to `training.bases.exported`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from lookalike.encoders.exported.encoder import PREFIX as FOLDER
from lookalike.encoders.open_clip.weights import PREFIX as OPEN_CLIP
from lookalike.errors import ConfigInvalid
from training.bases.exported import load_exported
from training.bases.open_clip import load_open_clip
from training.lite.base import load_lite
from training.network.trainable import Trainable
from training.settings import Base


def load_base(base: Base, *, text: bool) -> Trainable:
    """Return the base encoder's towers.

    Args:
        base: the table `[base]`.
        text: whether texts are trained on; a head of its own has none.

    Raises:
        ConfigInvalid: no such kind of base, or a head together with texts.
        EncoderError: its weights are missing or invalid.
    """
    if text and base.projection:
        raise ConfigInvalid(f"base.projection = {base.projection}: a projection is for images alone; captions need 0")
    if text and base.head:
        raise ConfigInvalid(f"base.head = {base.head}: a new head is for images alone; captions need 0")
    trainable = _load(base.encoder, base.head, text=text)
    if base.projection:
        trainable.projector = nn.Sequential(
            nn.Linear(trainable.dim, trainable.dim), nn.ReLU(), nn.Linear(trainable.dim, base.projection)
        )
    _set_size(trainable, base.size)
    return trainable


def _load(encoder: str, head: int, *, text: bool) -> Trainable:
    if encoder == "lite":
        return load_lite(head, text=text)
    if encoder.startswith(OPEN_CLIP):
        return load_open_clip(encoder, head, text=text)
    if encoder.startswith(FOLDER):
        return load_exported(Path(encoder.removeprefix(FOLDER)).expanduser(), head, text=text)
    known = f"lite, {OPEN_CLIP}<model>/<pretrained> and {FOLDER}<path>"
    raise ConfigInvalid(f"base.encoder = {encoder!r} can't be trained; known are {known}")


def _set_size(trainable: Trainable, size: int) -> None:
    old = trainable.preprocessing
    if size in (0, old.size):
        return
    if trainable.fixed_size:
        raise ConfigInvalid(f"base.size = {size}: a vision transformer takes {old.size} pixels only; leave it at 0")
    trainable.preprocessing = replace(old, size=size, resize=size)
