"""Embeddings of image files and texts, in batches; unreadable images are left out.

While a batch is encoded, the next one is read and decoded. Besides the embeddings, memory holds two batches of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from lookalike.encoders.protocol import Encoder, TextEncoder
from lookalike.errors import ImageError, SourceError, TextUnsupported
from lookalike.images import decode
from lookalike.types import Float32, UInt8

BATCH_SIZE = 64
T = TypeVar("T")
ProgressCallback = Callable[[int], object]
"""Called with the number of images done since the last call."""


def embed_images(
    encoder: Encoder, images: Iterable[Callable[[], bytes]], *, progress: ProgressCallback | None = None
) -> tuple[Float32, list[int]]:
    """Embed images; return their embeddings and the positions that could be read.

    Args:
        encoder: any encoder.
        images: functions that return an image's encoded bytes, such as `Example.load`; called in threads.
        progress: see `ProgressCallback`.

    Returns:
        (m, d) float32 of unit norm, and the m positions in `images` they belong to, ascending.
    """
    vectors, kept, seen = [np.zeros((0, encoder.spec.dim), np.float32)], [], 0
    with ThreadPoolExecutor() as pool:
        for pixels in _prefetched(chunks(images, BATCH_SIZE), lambda load: _pixels(encoder, load), pool):
            good = [array for array in pixels if array is not None]
            kept += [seen + i for i, array in enumerate(pixels) if array is not None]
            seen += len(pixels)
            if good:
                vectors.append(encoder.encode_images(np.stack(good)))
            if progress is not None:
                progress(len(pixels))
    return np.concatenate(vectors), kept


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> Float32:
    """Embed texts, (t, d) float32 of unit norm.

    Raises:
        TextUnsupported: the encoder has no text tower here.
    """
    if not (isinstance(encoder, TextEncoder) and encoder.spec.text):
        raise TextUnsupported(f"{encoder.spec.name!r} has no text tower here, and this measurement needs text queries")
    empty = [np.zeros((0, encoder.spec.dim), np.float32)]
    return np.concatenate(empty + [encoder.encode_texts(batch) for batch in chunks(texts, BATCH_SIZE)])


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _prefetched(
    batches: Iterable[list[Callable[[], bytes]]],
    work: Callable[[Callable[[], bytes]], UInt8 | None],
    pool: ThreadPoolExecutor,
) -> Iterator[list[UInt8 | None]]:
    """Yield the batches' results; the next batch is submitted before one is yielded."""
    pending = None
    for batch in batches:
        submitted = [pool.submit(work, item) for item in batch]
        if pending is not None:
            yield [future.result() for future in pending]
        pending = submitted
    if pending is not None:
        yield [future.result() for future in pending]


def _pixels(encoder: Encoder, load: Callable[[], bytes]) -> UInt8 | None:
    try:
        return encoder.preprocess(decode(load()).image)
    except (ImageError, SourceError):
        return None
