"""The protocols of an encoder: images or texts in, unit vectors out.

Text is a second protocol, since an image-only encoder is a real encoder. The contract suite in
`tests/contract/test_encoders.py` runs over every registered encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL.Image import Image

from lookalike.encoders.preprocessing import Preprocessing
from lookalike.types import EncoderSpec, Float32, UInt8

__all__ = ["Encoder", "Preprocessing", "TextEncoder"]


@runtime_checkable
class Encoder(Protocol):
    """Images to vectors.

    Instances are safe to call from `max_concurrent_batches` threads at a time; `preprocess` from any number.
    """

    @property
    def spec(self) -> EncoderSpec:
        """The encoder's properties; constant."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """The pure, picklable function behind `preprocess`, for worker processes that must not load a model."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Bytes of the loaded weights, as their engine holds them; towers that are not loaded yet count 0."""
        ...

    @property
    def image_batch_size(self) -> int:
        """The batch size that reaches the highest rate of images; a larger batch is no faster per image."""
        ...

    @property
    def max_concurrent_batches(self) -> int:
        """Number of threads that may encode batches concurrently, where that is faster than one after the other."""
        ...

    def preprocess(self, image: Image) -> UInt8:
        """RGB image of any size -> (3, S, S) uint8, S = spec.image_size. Pure CPU and thread-safe."""
        ...

    def encode_images(self, batch: UInt8) -> Float32:
        """Preprocessed images (n, 3, S, S) uint8 -> (n, d) float32 of unit L2 norm; row i belongs to input i.

        n = 0 gives (0, d). Any n is accepted: the encoder splits large batches.
        """
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder with a text tower; usable where `spec.text` is true."""

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Texts -> (n, d) float32 of unit L2 norm, in the same space as the images; row i belongs to text i.

        A text beyond the tower's token limit is truncated there, as the model's authors do.

        Raises:
            TextUnsupported: the text tower is not installed.
        """
        ...

    @property
    def max_tokens(self) -> int | None:
        """Number of tokens of a text that are read, special ones such as the end token included; None for no limit."""
        return None

    def truncated_tokens(self, text: str) -> int:
        """Return the number of tokens at the end of a text that `encode_texts` does not read.

        It may take as long as the tokenizer does.
        """
        return 0

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text that `encode_texts` reads, special ones included; 0 if unknown.

        It takes as long as the tokenizer does.
        """
        return [0] * len(texts)
