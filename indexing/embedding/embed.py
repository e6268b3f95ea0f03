"""Embeddings of images and texts in the order of the inputs, without a collection: what `lookalike embed` writes.

Dimension letters: n images of a batch, d embedding width, S the encoder's image size.
"""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from indexing.ingest.prefetch import prefetch
from lookalike.encoders.protocol import Encoder, TextEncoder
from lookalike.errors import EncoderError, ImageUndecodable, LookalikeError, TextEmpty, TextUnsupported
from lookalike.image_inputs import preprocess
from lookalike.paths import exists
from lookalike.search import require_unicode
from lookalike.sources.folder import FolderSource
from lookalike.sources.item import Source, display_name, unreadable_item
from lookalike.sources.registry import open_sources
from lookalike.sources.tar import TarSource
from lookalike.text import normalize_text
from lookalike.types import Float32, UInt8

_MIN_IMAGES_PER_BATCH = 64
_TEXTS_PER_BATCH = 64


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An image to encode.

    Attributes:
        name: the path that the user gave; of an image in a folder, a tar or a table, with its name in there.
        load: returns the file's bytes; raises LookalikeError. Safe to call from any thread.
    """

    name: str
    load: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The outcome of one input: a vector or an error.

    Attributes:
        name: of the image, or the text itself.
        vector: (d,) float32 of unit norm; None if the input failed.
        error: why it failed; None if it did not.
        truncated_tokens: number of tokens at the end of a text that the encoder did not read.
    """

    name: str
    vector: Float32 | None
    error: LookalikeError | None = None
    truncated_tokens: int = 0


class ImageInputs:
    """The images that command-line arguments name, in their order; what can't be read is an image that fails.

    Args:
        arguments: each an image, a folder, a tar, a Parquet file or a glob pattern.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._inputs = [_opened(path) for argument in arguments for path in _expanded(argument)]

    def __iter__(self) -> Iterator[NamedImage]:
        return chain.from_iterable(_named(argument, sources) for argument, sources in self._inputs)

    def estimated_count(self) -> int | None:
        """Return the approximate number of images; None if only reading all of them would tell."""
        counts = [_count(sources) for _, sources in self._inputs]
        return None if None in counts else sum(count or 0 for count in counts)


def embed_images(
    images: Iterable[NamedImage], encoder: Encoder, max_pixels: int, workers: int
) -> Iterator[list[Embedded]]:
    """Yield the outcomes of the images, in order and in batches; the next batches are decoded in threads meanwhile.

    Args:
        images: to encode.
        encoder: encodes them.
        max_pixels: width x height above which an image is rejected.
        workers: decode threads.

    Raises:
        EncoderError: the encoder failed on every image of a batch, so that the images are not the cause.
    """

    def decode(image: NamedImage) -> UInt8 | LookalikeError:
        try:
            return preprocess(image.load(), encoder, max_pixels)
        except LookalikeError as error:
            return error
        except Exception as error:  # an odd image that trips Pillow or a codec must not stop the others
            return ImageUndecodable(f"{type(error).__name__}: {error}")

    def batches(pool: ThreadPoolExecutor) -> Iterator[tuple[list[NamedImage], list[UInt8 | LookalikeError]]]:
        remaining, size = iter(images), max(_MIN_IMAGES_PER_BATCH, encoder.image_batch_size)
        while batch := list(islice(remaining, size)):
            yield batch, list(pool.map(decode, batch))

    with (
        ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool,
        closing(prefetch(batches(pool), 1)) as ready,
    ):
        for batch, outcomes in ready:
            yield list(_encode_images(batch, outcomes, encoder))


def embed_texts(texts: Iterable[str], encoder: Encoder) -> Iterator[list[Embedded]]:
    """Yield the outcomes of the texts, in order and in batches; they are normalized as queries are.

    Raises:
        TextUnsupported: the encoder has no text tower, or it is not installed.
        EncoderError: the encoder failed.
    """
    if not (isinstance(encoder, TextEncoder) and encoder.spec.text):
        raise TextUnsupported(f"encoder {encoder.spec.name!r} has no text tower here: {encoder.spec.text_hint}")
    remaining = iter(texts)
    while batch := list(islice(remaining, _TEXTS_PER_BATCH)):
        yield list(_encode_texts(batch, encoder))


def _expanded(argument: str) -> list[str]:
    """Return the files that a pattern matches; the argument itself if it is none, or matches none."""
    if not glob.has_magic(argument) or exists(Path(argument)):
        return [argument]
    return sorted(glob.glob(str(Path(argument).expanduser()), recursive=True)) or [argument]


def _opened(argument: str) -> tuple[str, list[Source] | LookalikeError]:
    try:
        return argument, open_sources([argument])
    except LookalikeError as error:
        return argument, error


def _named(argument: str, sources: list[Source] | LookalikeError) -> Iterator[NamedImage]:
    name = display_name(argument)
    if isinstance(sources, LookalikeError):
        yield NamedImage(name, unreadable_item(name, name, sources).load)
        return
    within = name.rstrip("/")
    if isinstance(sources[0], TarSource):  # the ids of a tar's images begin with its name
        within = display_name(str(Path(argument).parent))
    single = isinstance(sources[0], FolderSource) and not Path(argument).expanduser().is_dir()
    for item in chain.from_iterable(sources):
        yield NamedImage(name if single else posixpath.normpath(f"{within}/{item.id}"), item.load)


def _count(sources: list[Source] | LookalikeError) -> int | None:
    if isinstance(sources, LookalikeError):
        return 1
    counts = [source.estimated_count() for source in sources]
    return None if None in counts else sum(count or 0 for count in counts)


def _prepared(text: str) -> str | LookalikeError:
    try:
        require_unicode(text)
    except LookalikeError as error:
        return error
    return normalize_text(text) or TextEmpty("the text is empty")


def _encode_texts(batch: list[str], encoder: TextEncoder) -> Iterator[Embedded]:
    prepared = [_prepared(text) for text in batch]
    valid = [text for text in prepared if isinstance(text, str)]
    vectors = iter(encoder.encode_texts(valid) if valid else ())
    for name, text in zip(batch, prepared, strict=True):
        if isinstance(text, LookalikeError):
            yield Embedded(name, None, text)
        else:
            yield Embedded(name, next(vectors), truncated_tokens=encoder.truncated_tokens(text))


def _encode_images(
    batch: list[NamedImage], outcomes: list[UInt8 | LookalikeError], encoder: Encoder
) -> Iterator[Embedded]:
    decoded = [pixels for pixels in outcomes if not isinstance(pixels, LookalikeError)]
    vectors = iter(_vectors(encoder, np.stack(decoded)) if decoded else ())
    for image, outcome in zip(batch, outcomes, strict=True):
        result = outcome if isinstance(outcome, LookalikeError) else next(vectors)
        if isinstance(result, LookalikeError):
            yield Embedded(image.name, None, result)
        else:
            yield Embedded(image.name, result)


def _vectors(encoder: Encoder, pixels: UInt8) -> list[Float32 | EncoderError]:
    """Encode (n, 3, S, S) pixels; if the encoder fails, one by one, so that only the faulty ones fail."""
    try:
        return [_finite(vector) for vector in encoder.encode_images(pixels)]
    except EncoderError as failure:
        results = [_vector_or_error(encoder, image) for image in pixels]
        if all(isinstance(result, EncoderError) for result in results):
            raise failure
        return results


def _vector_or_error(encoder: Encoder, image: UInt8) -> Float32 | EncoderError:
    try:
        return _finite(encoder.encode_images(image[None])[0])
    except EncoderError as error:
        return error


def _finite(vector: Float32) -> Float32 | EncoderError:
    if np.isfinite(vector).all():
        return vector
    return EncoderError("the encoder's vector for this image is not finite; try another --engine")
