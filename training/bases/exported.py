"""Encoders that training exported, as bases of further training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lookalike.encoders.exported.model import ExportedEncoder, load_tower, read_encoder
from lookalike.encoders.exported.towers import Towers
from lookalike.errors import ConfigInvalid
from training.bases.open_clip import OPEN_CLIP_TRAITS, exported_tokens
from training.lite.base import LITE_TRAITS, lite_tokens
from training.network.trainable import Tokens, Trainable, Traits

_FAMILIES: dict[str, tuple[Traits, Callable[[ExportedEncoder], Tokens]]] = {
    "lite": (LITE_TRAITS, lite_tokens),
    "open_clip": (OPEN_CLIP_TRAITS, exported_tokens),
}


def load_exported(folder: Path, head: int, *, text: bool) -> Trainable:
    """Return an exported encoder's towers.

    Args:
        folder: what `lookalike train` wrote.
        head: must be 0.
        text: whether the text tower is trained as well.

    Raises:
        ConfigInvalid: a new head is asked for, or the encoder takes no texts.
        EncoderError: its weights are missing or invalid.
    """
    exported = read_encoder(folder)
    _require_trainable(exported, folder, head, text=text)
    traits, make_tokens = _FAMILIES[exported.architecture.family]
    towers = Towers(load_tower(folder, exported, "image"), load_tower(folder, exported, "text") if text else None)
    return Trainable(
        towers,
        replace(exported.architecture, text=text),
        exported.preprocessing,
        exported.dim,
        make_tokens(exported) if text else None,
        exported.context if text else 0,
        exported.end if text else None,
        exported.end_id if text else 0,
        traits=traits,
    )


def _require_trainable(exported: ExportedEncoder, folder: Path, head: int, *, text: bool) -> None:
    old_head = exported.architecture.head
    if head and old_head:
        raise ConfigInvalid(f"base.head = {head}: {folder} has a head of {old_head} already; 0 continues with it")
    if text and not exported.architecture.text:
        raise ConfigInvalid(f"base.encoder = 'folder:{folder}' was trained on images alone and takes no captions")
    if head:
        raise ConfigInvalid(f"base.head = {head}: start a new head from a published encoder, not from {folder}")
