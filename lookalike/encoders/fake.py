"""The encoder `fake`: vectors that a reader can check in the head, for tests; numpy only.

An image's vector is the mean colour of each cell of a 2 x 2 grid (4 cells x 3 channels), with a thirteenth number 32
so that black has a direction, scaled to unit norm. A text's vector is the one of an image of the colours it names:
"red" is all red; "red blue" has a red left half and a blue right half. A word without a colour is grey. The probability
of two images is their cosine, that of an image and a text (1 + cosine) / 2. The temperature is 0.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image
from typing_extensions import override

from lookalike.calibration import Calibration, PairCalibration
from lookalike.encoders.dual_encoder import unit_rows
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.encoders.protocol import TextEncoder
from lookalike.types import EncoderSpec, Float32, UInt8

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
}
MAX_WORDS = 32
"""Words of a text that are read; a token is a word."""
SIZE = 8
DIM = 13
_BIAS = 32.0

_PREPROCESSING = Preprocessing(SIZE, SIZE, "squash", "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class FakeEncoder(TextEncoder):
    """A `TextEncoder` that needs no model."""

    spec = EncoderSpec(
        name="fake",
        weights="0" * 64,
        dim=DIM,
        image_size=SIZE,
        preprocessing=_PREPROCESSING.digest,
        text=True,
        engine="numpy",
        precision="fp32",
        calibration=Calibration(
            image_image=PairCalibration(threshold=0.3, cosines=(0.0, 1.0), probabilities=(0.0, 1.0)),
            image_text=PairCalibration(threshold=0.75, cosines=(-1.0, 1.0), probabilities=(0.0, 1.0)),
        ),
        temperature=0.1,
        languages=("en",),
        limits="Good for colours; not for anything else.",
    )
    preprocessing = _PREPROCESSING
    weight_bytes = 0
    image_batch_size = 4
    max_concurrent_batches = 1
    max_tokens = MAX_WORDS

    @override
    def preprocess(self, image: Image) -> UInt8:
        return _PREPROCESSING(image)

    @override
    def encode_images(self, batch: UInt8) -> Float32:
        if batch.ndim != 4 or batch.shape[1:] != (3, SIZE, SIZE) or batch.dtype != np.uint8:
            raise ValueError(f"expected (n, 3, {SIZE}, {SIZE}) uint8, got {batch.shape} {batch.dtype}")
        half = SIZE // 2
        cells = batch.reshape(len(batch), 3, 2, half, 2, half).mean(axis=(3, 5))  # (n, 3, 2, 2)
        bias = np.full((len(batch), 1), _BIAS)
        return unit_rows(np.concatenate([cells.reshape(len(batch), 12), bias], axis=1).astype(np.float32))

    @override
    def encode_texts(self, texts: Sequence[str]) -> Float32:
        images = np.array([_paint(text) for text in texts], np.uint8).reshape(len(texts), 3, SIZE, SIZE)
        return self.encode_images(images)

    @override
    def truncated_tokens(self, text: str) -> int:
        return max(0, len(text.split()) - MAX_WORDS)

    @override
    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [min(MAX_WORDS, len(text.split())) for text in texts]


def _paint(text: str) -> UInt8:
    """(3, S, S): vertical stripes of the colours named, in their order; at most two."""
    named = [COLOURS[word] for word in text.lower().split()[:MAX_WORDS] if word in COLOURS][:2] or [COLOURS["grey"]]
    columns = np.repeat(np.array(named, np.uint8), SIZE // len(named), axis=0)  # (S, 3)
    return np.ascontiguousarray(np.broadcast_to(columns.T[:, None, :], (3, SIZE, SIZE)))
