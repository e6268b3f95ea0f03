"""Encoders that training exported, as bases of further training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lookalike.encoders.architecture import Towers
from lookalike.encoders.exported.format import ExportedEncoder, read_encoder
from lookalike.encoders.exported.loading import load_tower
from lookalike.encoders.families import model_family
from lookalike.errors import ConfigInvalid
from training.bases.open_clip import OPEN_CLIP_TRAITS
from training.lite.base import LITE_TRAITS
from training.network.trainable import Tokens, Trainable

_TRAITS = {"lite": LITE_TRAITS, "open_clip": OPEN_CLIP_TRAITS}


def load_exported(folder: Path, head: int, *, text: bool) -> Trainable:
    """Return an exported encoder's towers.

    Args:
        folder: what `lookalike train` wrote.
        head: must be 0.
        text: whether the text tower is trained as well.

    Raises:
        ConfigInvalid: `head` is not 0, or the encoder takes no texts.
        EncoderError: its weights are missing or invalid.
    """
    exported = read_encoder(folder)
    _require_trainable(exported, folder, head, text=text)
    towers = Towers(load_tower(folder, exported, "image"), load_tower(folder, exported, "text") if text else None)
    return Trainable(
        towers,
        replace(exported.architecture, text=text),
        exported.preprocessing,
        exported.dim,
        _tokens(exported) if text else None,
        exported.context if text else 0,
        exported.end if text else None,
        exported.end_id if text else 0,
        traits=_TRAITS[exported.architecture.family],
    )


def _tokens(exported: ExportedEncoder) -> Tokens:
    architecture = exported.architecture
    inputs = model_family(architecture.family).text_input(
        architecture.model, context=exported.context, end=exported.end, end_id=exported.end_id
    )
    return inputs.tokenize


def _require_trainable(exported: ExportedEncoder, folder: Path, head: int, *, text: bool) -> None:
    old_head = exported.architecture.head
    if head and old_head:
        raise ConfigInvalid(f"base.head = {head}: {folder} has a head of {old_head} already; 0 continues with it")
    if text and not exported.architecture.text:
        raise ConfigInvalid(f"base.encoder = 'folder:{folder}' was trained on images alone and takes no captions")
    if head:
        raise ConfigInvalid(f"base.head = {head}: start a new head from a published encoder, not from {folder}")
