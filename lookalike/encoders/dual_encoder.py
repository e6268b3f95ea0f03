"""A dual encoder: an image tower, perhaps a text tower, and an engine for each, loaded when it is first needed.

Every real encoder is one of these; they differ in where towers and tokens come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from typing_extensions import override

from lookalike.encoders.engines import Engine, EngineChoice, Tower, create_engine
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.encoders.protocol import TextEncoder
from lookalike.errors import EncoderError, TextUnsupported
from lookalike.types import EncoderSpec, Float32, UInt8

IMAGE_BATCHES = (1, 8)
"""Row counts of the image towers' graphs: 32 rows run as fast in four calls of 8 as in one, and stay in the cache."""

TEXT_BATCHES = (1, 2, 4, 8, 16, 32)

TOKEN_STEP = 4
"""Token counts are rounded up to multiples of this: the first batch of each shape costs some milliseconds."""


class Tokenize(Protocol):
    """The tokenizer of a text tower."""

    @property
    def max_tokens(self) -> int:
        """Number of tokens that the tower takes, special ones such as the end token included."""
        ...

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Texts, n >= 1 of them, -> an array (n, t) for each input of the tower, t the longest text's token count."""
        ...

    def truncated_tokens(self, text: str) -> int:
        """Return the number of tokens at the end of a text that are left out, because the tower takes no more."""
        ...

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text that the tower takes, special ones included."""
        ...


@dataclass(frozen=True)
class TextModel:
    """The text tower and its tokenizer.

    Attributes:
        tower: its inputs are what `tokenize` returns.
        tokenize: called with at most TEXT_BATCHES[-1] texts.
    """

    tower: Tower
    tokenize: Tokenize


class DualEncoder(TextEncoder):
    """A `TextEncoder` of two towers. Nothing is loaded before the first batch."""

    def __init__(
        self,
        spec: EncoderSpec,
        preprocessing: Preprocessing,
        choice: EngineChoice,
        image: Tower,
        text: TextModel | None,
    ) -> None:
        """Take the towers; load neither.

        Args:
            spec: what the encoder is; `spec.text` agrees with `text`.
            preprocessing: applied to every image.
            choice: what runs the towers.
            image: (n, 3, S, S) uint8 -> (n, d).
            text: None where texts can't be encoded here.
        """
        self._spec = spec
        self._preprocessing = preprocessing
        self._choice = choice
        self._image = image
        self._text = text

    @property
    @override
    def spec(self) -> EncoderSpec:
        return self._spec

    @property
    @override
    def preprocessing(self) -> Preprocessing:
        return self._preprocessing

    @property
    @override
    def weight_bytes(self) -> int:
        loaded = (self.__dict__.get(name) for name in ("_image_engine", "_text_engine"))  # cached_property keeps them
        return sum(engine.weight_bytes for engine in loaded if engine is not None)

    @property
    @override
    def image_batch_size(self) -> int:
        return self._image.batches[-1]

    @property
    @override
    def max_concurrent_batches(self) -> int:
        return self._choice.streams

    @override
    def preprocess(self, image: Image) -> UInt8:
        return self._preprocessing(image)

    @override
    def encode_images(self, batch: UInt8) -> Float32:
        side = self._spec.image_size
        if batch.ndim != 4 or batch.shape[1:] != (3, side, side) or batch.dtype != np.uint8:
            raise ValueError(f"expected (n, 3, {side}, {side}) uint8, got {batch.shape} {batch.dtype}")
        return unit_rows(self._image_engine(batch))

    @override
    def encode_texts(self, texts: Sequence[str]) -> Float32:
        text = self._text_model()
        texts = list(texts)
        embeddings = np.empty((len(texts), self._spec.dim), np.float32)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths together: little padding
        for start in range(0, len(texts), TEXT_BATCHES[-1]):
            rows = by_length[start : start + TEXT_BATCHES[-1]]
            embeddings[rows] = self._text_engine(*text.tokenize([texts[i] for i in rows]))
        return unit_rows(embeddings)

    @property
    @override
    def max_tokens(self) -> int | None:
        return None if self._text is None else self._text.tokenize.max_tokens

    @override
    def truncated_tokens(self, text: str) -> int:
        return self._text_model().tokenize.truncated_tokens(text)

    @override
    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return self._text_model().tokenize.token_counts(list(texts)) if texts else []

    def load(self) -> None:
        """Load both towers, and convert those that were never converted before."""
        _ = self._image_engine
        if self._text is not None:
            _ = self._text_engine

    @cached_property
    def _image_engine(self) -> Engine:
        return create_engine(self._image, self._choice)

    @cached_property
    def _text_engine(self) -> Engine:
        return create_engine(self._text_model().tower, self._choice)

    def _text_model(self) -> TextModel:
        if self._text is None:
            raise TextUnsupported(f"encoder {self._spec.name!r} has no text tower here: {self._spec.text_hint}")
        return self._text


def unit_rows(vectors: Float32) -> Float32:
    """Scale rows (n, d) to unit L2 norm in float32: a half-precision graph's own scaling errs by a thousandth.

    Raises:
        EncoderError: a row is not finite; it would poison every later comparison.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise EncoderError(
            "the model returned vectors that are not finite: the weights are broken, or the precision is too low"
        )
    scaled: Float32 = vectors / np.maximum(norms, np.float32(1e-12))
    return scaled


def pad_tokens(ids: NDArray[Any], longest: int) -> NDArray[Any]:
    """Pad ids (n, t) with 0 to the next multiple of TOKEN_STEP, at most `longest`."""
    width = min(longest, -(-ids.shape[1] // TOKEN_STEP) * TOKEN_STEP)
    if width <= ids.shape[1]:
        return ids
    padded = np.zeros((len(ids), width), ids.dtype)  # np.pad takes ten times as long
    padded[:, : ids.shape[1]] = ids
    return padded
