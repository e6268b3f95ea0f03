"""Encoded bytes and texts -> embeddings, in batches; images that can't be read are named and left out.

While the encoder works on a batch, the next one is read and decoded. Memory is bounded by two batches of images
besides the embeddings.
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

BATCH = 64
T = TypeVar("T")
Progress = Callable[[int], object]


def embed_images(
    encoder: Encoder, images: Iterable[Callable[[], bytes]], *, progress: Progress | None = None
) -> tuple[Float32, list[int]]:
    """Images -> their embeddings, and which positions could be read.

    Args:
        encoder: any encoder.
        images: what gives each image's encoded bytes, `Example.load` for instance; called in threads.
        progress: called with the number of images done since the last call.

    Returns:
        (m, d) float32 of unit norm, and the m positions in `images` they belong to, ascending.
    """
    vectors, kept, seen = [np.zeros((0, encoder.spec.dim), np.float32)], [], 0
    with ThreadPoolExecutor() as pool:
        for pixels in _ahead(chunks(images, BATCH), lambda load: _pixels(encoder, load), pool):
            good = [array for array in pixels if array is not None]
            kept += [seen + i for i, array in enumerate(pixels) if array is not None]
            seen += len(pixels)
            if good:
                vectors.append(encoder.encode_images(np.stack(good)))
            if progress is not None:
                progress(len(pixels))
    return np.concatenate(vectors), kept


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> Float32:
    """Texts -> (t, d) float32 of unit norm.

    Raises:
        TextUnsupported: the encoder has no text tower here.
    """
    if not (isinstance(encoder, TextEncoder) and encoder.spec.text):
        raise TextUnsupported(f"{encoder.spec.name!r} has no text tower here, and this measurement asks with words")
    empty = [np.zeros((0, encoder.spec.dim), np.float32)]
    return np.concatenate(empty + [encoder.encode_texts(batch) for batch in chunks(texts, BATCH)])


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _ahead(
    batches: Iterable[list[Callable[[], bytes]]],
    work: Callable[[Callable[[], bytes]], UInt8 | None],
    pool: ThreadPoolExecutor,
) -> Iterator[list[UInt8 | None]]:
    """The batches' results, the next batch begun before the last one is given away."""
    waiting = None
    for batch in batches:
        following = [pool.submit(work, item) for item in batch]
        if waiting is not None:
            yield [future.result() for future in waiting]
        waiting = following
    if waiting is not None:
        yield [future.result() for future in waiting]


def _pixels(encoder: Encoder, load: Callable[[], bytes]) -> UInt8 | None:
    try:
        return encoder.preprocess(decode(load()).image)
    except (ImageError, SourceError):
        return None
