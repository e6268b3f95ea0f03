"""Tasks in, batches of encoded rows out: decode -> preprocess -> encode, so that the encoder is always busy.

    decode threads      bytes -> hash -> known row, or (3, S, S) uint8 and thumbnail (Pillow releases the GIL)
    batching thread     decoded images -> batches, in the order of the tasks
    calling thread      encoder -> rows

Every queue between them is bounded, and so is memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np

from indexing.ingest.decoding import Decoded, DecodeTask, Outcome, Recognised, Rejected, Verified
from indexing.ingest.prefetch import prefetch
from indexing.ingest.shards import EncodedRow
from lookalike.encoders.protocol import Encoder
from lookalike.errors import EncoderError, LookalikeError
from lookalike.types import Float32, UInt8

S = TypeVar("S")
T = TypeVar("T")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "std::bad_alloc")
"""How torch, CUDA and OpenVINO word it."""


@dataclass(slots=True)
class EncodedBatch:
    """The rows of one batch, or of several.

    Attributes:
        rows: of the images that were encoded, recognised or rejected.
        encoded: images that the encoder encoded.
        recognised: images that were copied, since the same content was encoded before.
        verified: images whose file has the content that was encoded; they have no row here.
        edited: images whose file has another content than was encoded, although its fingerprint is the same.
        encoder_idle_seconds: how long the encoder waited for the batch.
        is_start: whether it has no images, and stands for encoders that were loaded and compiled.
    """

    rows: list[EncodedRow] = field(default_factory=list)
    encoded: int = 0
    recognised: int = 0
    verified: int = 0
    edited: int = 0
    encoder_idle_seconds: float = 0.0
    is_start: bool = False

    @property
    def rejected(self) -> int:
        """Images that could not be decoded or encoded."""
        return len(self.rows) - self.encoded - self.recognised

    def extend(self, other: EncodedBatch) -> None:
        """Add the rows and counts of another batch."""
        self.rows += other.rows
        self.encoded += other.encoded
        self.recognised += other.recognised
        self.verified += other.verified
        self.edited += other.edited
        self.encoder_idle_seconds += other.encoder_idle_seconds


def outcome_batches(
    tasks: Iterable[S], decode: Callable[[S], T], executor: Executor, ahead: int, size: int
) -> Generator[list[T], None, None]:
    """Yield the outcomes of the tasks in their order, in batches; the next ones are decoded meanwhile.

    Args:
        tasks: iterated on another thread.
        decode: called on the executor's threads.
        executor: of the decode threads.
        ahead: tasks that are decoded ahead, besides two batches.
        size: outcomes in a batch.
    """
    decoded = _decode_ahead(tasks, decode, executor, ahead)
    with closing(prefetch(_batches(decoded, size), 2)) as batches:
        yield from batches


def _decode_ahead(
    tasks: Iterable[S], decode: Callable[[S], T], executor: Executor, ahead: int
) -> Generator[T, None, None]:
    submitted: Iterator[Future[T]] = (executor.submit(decode, task) for task in tasks)
    with closing(prefetch(submitted, ahead)) as futures:
        for future in futures:
            yield future.result()


def _batches(outcomes: Generator[T, None, None], size: int) -> Iterator[list[T]]:
    with closing(outcomes):  # a generator: closing it ends its threads
        while batch := list(islice(outcomes, size)):
            yield batch


def encoded_batches(
    batches: Iterator[list[T]], encode: Callable[[Sequence[T]], EncodedBatch]
) -> Iterator[EncodedBatch]:
    """Yield each batch encoded, with the time that the encoder waited for it."""
    while True:
        begun = time.perf_counter()
        batch = next(batches, None)
        waited = time.perf_counter() - begun
        encoded = EncodedBatch() if batch is None else encode(batch)
        encoded.encoder_idle_seconds += waited
        yield encoded
        if batch is None:
            return


def encode_batch(outcomes: Sequence[Outcome], encoder: Encoder) -> EncodedBatch:
    """Encode the decoded images of a batch.

    Raises:
        EncoderError: the encoder failed on all of them.
    """
    recognised = [outcome.row for outcome in outcomes if isinstance(outcome, Recognised)]
    verified = sum(isinstance(outcome, Verified) for outcome in outcomes)
    rows = [_rejected_row(outcome.task, outcome.error) for outcome in outcomes if isinstance(outcome, Rejected)]
    decoded = [outcome for outcome in outcomes if isinstance(outcome, Decoded)]
    encoded = _encoded_rows(decoded, encoder) if decoded else []
    return EncodedBatch(
        [*rows, *recognised, *encoded],
        encoded=sum(row.code is None for row in encoded),
        recognised=len(recognised),
        verified=verified,
        edited=sum(outcome.task.known_content is not None for outcome in outcomes) - verified,
    )


def _encoded_rows(decoded: Sequence[Decoded], encoder: Encoder) -> list[EncodedRow]:
    vectors = encode_pixels(encoder, np.stack([outcome.image.pixels for outcome in decoded])).astype(np.float16)
    return [
        _encoded_row(outcome, vector.tobytes())
        if np.isfinite(vector).all()
        else _rejected_row(outcome.task, _NOT_FINITE)
        for outcome, vector in zip(decoded, vectors, strict=True)
    ]


_NOT_FINITE = EncoderError("the encoder's vector for this image is not finite; try another --engine")


def encode_pixels(encoder: Encoder, pixels: UInt8) -> Float32:
    """Return the (n, d) vectors of (n, 3, S, S) preprocessed images.

    If the memory does not hold the batch, its halves are encoded one after the other. If the encoder refuses it, its
    images are encoded one by one: NaN for those that fail.
    """
    try:
        return encoder.encode_images(pixels)
    except EncoderError:
        return _one_by_one(encoder, pixels)
    except LookalikeError:
        raise
    except Exception as error:  # engines raise any type
        if _is_out_of_memory(error) and len(pixels) > 1:
            half = len(pixels) // 2
            parts = (pixels[:half], pixels[half:])
        else:
            raise EncoderError(
                f"the encoder {encoder.spec.name!r} failed on a batch of {len(pixels)}: "
                f"{type(error).__name__}: {error}. What was encoded before is kept: run the same command again"
            ) from error
    return np.concatenate([encode_pixels(encoder, part) for part in parts])  # here the failed call's memory is released


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _one_by_one(encoder: Encoder, pixels: UInt8) -> Float32:
    """Encode each image alone; raise the encoder's error if all fail, since then the images are not the cause."""
    vectors = np.full((len(pixels), encoder.spec.dim), np.nan, np.float32)
    failure: EncoderError | None = None
    for vector, image in zip(vectors, pixels, strict=True):
        try:
            vector[:] = encoder.encode_images(image[None])[0]
        except EncoderError as error:
            failure = error
    if failure is not None and np.isnan(vectors).all():
        raise failure
    return vectors


def _encoded_row(outcome: Decoded, vector: bytes) -> EncodedRow:
    image = outcome.image
    return EncodedRow(
        outcome.task.id_hash,
        outcome.task.fingerprint,
        vector,
        image.thumbnail,
        image.width,
        image.height,
        image.format,
        content_hash=image.content_hash,
        truncated=image.truncated or None,
    )


def _rejected_row(task: DecodeTask, error: LookalikeError) -> EncodedRow:
    return EncodedRow(task.id_hash, task.fingerprint, code=error.code, message=str(error))
