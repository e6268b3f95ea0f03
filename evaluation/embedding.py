"""Encoded bytes and texts -> embeddings, in batches; pictures that can't be decoded are named and left out.

Memory is bounded by one batch of pictures besides the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from retrieval.encoders.protocol import Encoder, TextEncoder
from retrieval.errors import ImageError, TextUnsupported
from retrieval.images import decode
from retrieval.types import Float32, UInt8

BATCH = 64
T = TypeVar("T")
Progress = Callable[[int], object]


def embed_images(
    encoder: Encoder, images: Iterable[bytes], *, progress: Progress | None = None
) -> tuple[Float32, list[int]]:
    """Encoded pictures -> their embeddings, and which positions could be read.

    Args:
        encoder: any encoder.
        images: encoded bytes; consumed lazily, 64 at a time.
        progress: called with the number of pictures done since the last call.

    Returns:
        (m, d) float32 of unit norm, and the m positions in `images` they belong to, ascending.
    """
    vectors, kept, seen = [np.zeros((0, encoder.spec.dim), np.float32)], [], 0
    with ThreadPoolExecutor() as pool:
        for batch in chunks(images, BATCH):
            pixels = list(pool.map(lambda data: _pixels(encoder, data), batch))
            good = [array for array in pixels if array is not None]
            kept += [seen + i for i, array in enumerate(pixels) if array is not None]
            seen += len(batch)
            if good:
                vectors.append(encoder.encode_images(np.stack(good)))
            if progress is not None:
                progress(len(batch))
    return np.concatenate(vectors), kept


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> Float32:
    """Texts -> (q, d) float32 of unit norm.

    Raises:
        TextUnsupported: the encoder has no text tower here.
    """
    if not (isinstance(encoder, TextEncoder) and encoder.spec.text):
        raise TextUnsupported(f"{encoder.spec.name!r} has no text tower here, and this measurement asks with words")
    return np.concatenate([encoder.encode_texts(batch) for batch in chunks(texts, BATCH)])


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _pixels(encoder: Encoder, data: bytes) -> UInt8 | None:
    try:
        return encoder.preprocess(decode(data).image)
    except ImageError:
        return None
