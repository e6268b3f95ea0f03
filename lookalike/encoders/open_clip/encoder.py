"""The encoder `open_clip:<model>/<pretrained>`: any dual encoder of open_clip, with its authors' preprocessing.

The first start builds the model, converts its towers and notes down what it is; later starts read the note and the
converted towers, and import neither torch nor open_clip until a text comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lookalike.encoders.dual import IMAGE_BATCHES, TEXT_BATCHES, DualEncoder, TextSide, pad_tokens
from lookalike.encoders.engines import EngineChoice, EngineOptions, Tower, choose_engine
from lookalike.encoders.engines.cache import sha256_file
from lookalike.encoders.open_clip.model import Description, OpenClipModel
from lookalike.encoders.open_clip.weights import parse_name
from lookalike.errors import EncoderError
from lookalike.types import EncoderSpec, Int64

if TYPE_CHECKING:
    from torch import nn

_EXAMPLE_TOKENS = 8
PACKED_TOKENS = 192
"""Texts that `pack` lays side by side: more take as long a token, and attention grows with their square."""


def open_clip_encoder(name: str, options: EngineOptions = EngineOptions()) -> DualEncoder:
    """An open_clip model as an encoder.

    Args:
        name: `open_clip:<model>/<pretrained>[@<precision>]`; <pretrained> is a published tag or a checkpoint's path.
        options: device, engine, precision and threads; the precision must not contradict the name's.

    Raises:
        UnknownEncoder: no such model or tag.
        WeightsMissing: no such file, or it could not be fetched.
        WeightsInvalid: the file is no checkpoint of this model.
        EncoderError: an engine that can't run here.
    """
    parts = parse_name(name)
    if parts.precision != "auto":
        if options.precision not in ("auto", parts.precision):
            raise EncoderError(
                f"{name!r} says {parts.precision}, but precision {options.precision!r} was asked for; drop one"
            )
        options = replace(options, precision=parts.precision)
    loader = OpenClipModel(parts)
    described = loader.description
    choice = choose_engine(options)
    encoder = _assemble(name, described, choice, loader)
    if loader.loaded:  # while the model is in memory: later starts will not need it
        encoder.load()
        loader.release()
    return encoder


def _assemble(name: str, described: Description, choice: EngineChoice, loader: OpenClipModel) -> DualEncoder:
    side = described.preprocessing.size
    image = Tower(
        name="open_clip-image",
        key=_tower_key(described, described.preprocessing.digest),
        dim=described.dim,
        build=lambda: lean_tower(loader.image_tower()),
        example=(np.zeros((2, 3, side, side), np.uint8),),
        sequence=False,
        batches=IMAGE_BATCHES,
    )
    spec = EncoderSpec(
        name=name,
        weights=described.weights,
        dim=described.dim,
        image_size=side,
        preprocessing=described.preprocessing.digest,
        text=described.no_text is None,
        engine=choice.engine,
        precision=choice.precision,
        device=choice.device,
    )
    text = _text_side(described, loader) if spec.text else None
    return DualEncoder(spec, described.preprocessing, choice, image, text, described.no_text or "")


def _tower_key(described: Description, *more: str) -> str:
    """The weights and the code around them, open_clip's and ours."""
    ours = [sha256_file(Path(__file__).with_name(f"{name}.py")) for name in ("towers", "inference", "packed")]
    return hashlib.sha256(" ".join([described.weights, version("open_clip_torch"), *ours, *more]).encode()).hexdigest()


def lean_tower(tower: nn.Module) -> nn.Module:
    """See `lean`."""
    from lookalike.encoders.open_clip.inference import lean

    return lean(tower)


def _text_side(described: Description, loader: OpenClipModel) -> TextSide:
    tokens = described.context if described.end is None else min(_EXAMPLE_TOKENS, described.context)
    tower = Tower(
        name="open_clip-text",
        key=_tower_key(described),
        dim=described.dim,
        build=lambda: lean_tower(loader.text_tower()),
        example=(np.ones((2, tokens), np.int64),),
        sequence=True,
        batches=TEXT_BATCHES,
        tokens=0 if described.end is None else PACKED_TOKENS,
    )
    return TextSide(tower, OpenClipTokens(loader.tokenizer, described.end, described.end_id))


class OpenClipTokens:
    """Texts -> (ids,), cut after the longest text's end token where the tower allows it; see `trim`."""

    def __init__(self, tokenizer: Callable[[], Any], end: str | None, end_id: int) -> None:
        self._get = tokenizer
        self._end = end
        self._end_id = end_id

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Texts -> ((n, t) int64,)."""
        ids = np.asarray(self._tokenizer(list(texts)).numpy(), np.int64)
        return (trim(ids, self._end, self._end_id),)

    @cached_property
    def _tokenizer(self) -> Any:
        return self._get()


def trim(ids: Int64, end: str | None, end_id: int) -> Int64:
    """Cut ids (n, t) after the last row's end token, to a multiple of four; what follows can't change the result.

    Args:
        ids: as open_clip's tokenizer pads them.
        end: `argmax`: the end token has the greatest id of its row; `eos`: it is `end_id`; None: nothing is cut.
        end_id: see `end`.
    """
    if end is None:
        return ids
    marks = ids if end == "argmax" else ids == end_id
    return pad_tokens(ids[:, : int(marks.argmax(axis=1).max()) + 1], ids.shape[1])
