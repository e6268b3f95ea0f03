"""A dual encoder: an image tower, perhaps a text tower, and an engine for each, loaded when it is first needed.

Every real encoder is one of these; what differs is where towers and tokens come from. Knows nothing of weights' files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from lookalike.encoders.engines import Engine, EngineChoice, Tower, make_engine
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import EncoderError, TextUnsupported
from lookalike.types import EncoderSpec, Float32, UInt8

IMAGE_BATCHES = (1, 8)
"""Row counts of the image towers' graphs: 32 run as four times 8 as fast as at once, and stay in the cache."""

TEXT_BATCHES = (1, 2, 4, 8, 16, 32)

TOKEN_STEP = 4
"""Token counts are rounded up to multiples of this: each shape costs some milliseconds the first time it is met."""

Tokenize = Callable[[Sequence[str]], tuple[NDArray[Any], ...]]
"""n >= 1 texts -> one array (n, t) for each input of the text tower, t the longest text's token count."""


@dataclass(frozen=True)
class TextSide:
    """The text tower and what makes its input.

    Attributes:
        tower: takes what `tokenize` gives.
        tokenize: called with at most TEXT_BATCHES[-1] texts.
    """

    tower: Tower
    tokenize: Tokenize


class DualEncoder:
    """See `TextEncoder`."""

    def __init__(
        self,
        spec: EncoderSpec,
        preprocessing: Preprocessing,
        choice: EngineChoice,
        image: Tower,
        text: TextSide | None,
        text_mend: str,
    ) -> None:
        """Loads nothing yet.

        Args:
            spec: what it is; `spec.text` agrees with `text`.
            preprocessing: applied to every image.
            choice: what runs the towers.
            image: (n, 3, S, S) uint8 -> (n, d).
            text: None where texts can't be encoded here.
            text_mend: what to tell somebody who gives a text all the same.
        """
        self._spec = spec
        self._preprocessing = preprocessing
        self._choice = choice
        self._image = image
        self._text = text
        self._text_mend = text_mend

    @property
    def spec(self) -> EncoderSpec:
        """See `Encoder`."""
        return self._spec

    @property
    def preprocessing(self) -> Preprocessing:
        """See `Encoder`."""
        return self._preprocessing

    @property
    def weight_bytes(self) -> int:
        """See `Encoder`."""
        loaded = (self.__dict__.get(name) for name in ("_image_engine", "_text_engine"))  # cached_property keeps them
        return sum(engine.weight_bytes for engine in loaded if engine is not None)

    @property
    def image_batch(self) -> int:
        """See `Encoder`."""
        return self._image.batches[-1]

    @property
    def max_concurrent_batches(self) -> int:
        """See `Encoder`."""
        return self._choice.streams

    def preprocess(self, image: Image) -> UInt8:
        """See `Encoder`."""
        return self._preprocessing(image)

    def encode_images(self, batch: UInt8) -> Float32:
        """See `Encoder`."""
        side = self._spec.image_size
        if batch.ndim != 4 or batch.shape[1:] != (3, side, side) or batch.dtype != np.uint8:
            raise ValueError(f"expected (n, 3, {side}, {side}) uint8, got {batch.shape} {batch.dtype}")
        return unit_rows(self._image_engine(batch))

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """See `TextEncoder`."""
        if self._text is None:
            raise TextUnsupported(self._text_mend)
        texts = list(texts)
        embeddings = np.empty((len(texts), self._spec.dim), np.float32)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths together: little padding
        for start in range(0, len(texts), TEXT_BATCHES[-1]):
            rows = by_length[start : start + TEXT_BATCHES[-1]]
            embeddings[rows] = self._text_engine(*self._text.tokenize([texts[i] for i in rows]))
        return unit_rows(embeddings)

    def load(self) -> None:
        """Load both towers now, converting what was never converted before."""
        _ = self._image_engine
        if self._text is not None:
            _ = self._text_engine

    @cached_property
    def _image_engine(self) -> Engine:
        return make_engine(self._image, self._choice)

    @cached_property
    def _text_engine(self) -> Engine:
        if self._text is None:
            raise TextUnsupported(self._text_mend)
        return make_engine(self._text.tower, self._choice)


def unit_rows(vectors: Float32) -> Float32:
    """Rows (n, d) scaled to unit L2 norm in float32: a half-precision graph's own scaling errs by a thousandth.

    Raises:
        EncoderError: a row is not finite; it would poison every later comparison.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise EncoderError(
            "the model gave vectors that are not finite: broken weights, or a precision too low for them"
        )
    scaled: Float32 = vectors / np.maximum(norms, np.float32(1e-12))
    return scaled


def pad_tokens(ids: NDArray[Any], longest: int) -> NDArray[Any]:
    """Ids (n, t) -> (n, t'), t' the next multiple of TOKEN_STEP, at most `longest`; the new columns are 0."""
    width = min(longest, -(-ids.shape[1] // TOKEN_STEP) * TOKEN_STEP)
    return np.pad(ids, ((0, 0), (0, max(0, width - ids.shape[1]))))
