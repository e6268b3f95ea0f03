"""Images in, embedding shards out: decode -> preprocess -> encode, so that the encoder is always busy.

    reader thread       sources -> ids checked -> plan; images with a reusable embedding go no further
    decode threads      bytes -> hash -> known row, or (3, S, S) uint8 and thumbnail (Pillow releases the GIL)
    batching thread     decoded images -> batches, in the order of the sources
    calling thread      encoder -> shards

Every queue between them is bounded, and so is memory.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np

from indexing.id_set import IdSet
from indexing.ingest.content_index import ContentIndex
from indexing.ingest.decoding import (
    DECODER_VERSION,
    Decoded,
    Decoder,
    DecodeTask,
    Outcome,
    Recognised,
    Rejected,
    Verified,
)
from indexing.ingest.kept_items import KeptItems
from indexing.ingest.prefetch import prefetch
from indexing.ingest.reusable_embeddings import ReusableEmbeddings, find_row
from indexing.ingest.shards import EncodedRow, ShardWriter
from indexing.plan import Plan, PlanWriter
from indexing.progress import Progress
from lookalike.encoders.protocol import Encoder
from lookalike.errors import DuplicateId, EncoderError, LookalikeError
from lookalike.metadata import id_hash
from lookalike.sources.item import Item, Source, fingerprint
from lookalike.types import Float32, UInt8


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """Sizes and limits of the encoding.

    Attributes:
        batch_size: images per call of the encoder.
        workers: decode threads.
        max_pixels: width x height above which an image is rejected.
        verify_content: whether to read all files, and compare their content with what was encoded.
    """

    batch_size: int
    workers: int
    max_pixels: int
    verify_content: bool = False


@dataclass(slots=True)
class EncodeStats:
    """Counts and times of the encoding.

    Attributes:
        encoded: images that the encoder encoded.
        recognised: images that were copied, since the same content was encoded before.
        verified: images whose file was read and has the content that was encoded.
        edited: images whose file was read and has another content, although its fingerprint is the same.
        resumed: images that a stopped run encoded or recognised.
        seconds: from the first item to the last batch.
        encoder_idle_seconds: seconds of these in which the encoder had no batch.
        first_encoded: images of the first batch.
        first_seconds: until the first batch was encoded, which includes compiling the model.
    """

    encoded: int = 0
    recognised: int = 0
    verified: int = 0
    edited: int = 0
    resumed: int = 0
    seconds: float = 0.0
    encoder_idle_seconds: float = 0.0
    first_encoded: int = 0
    first_seconds: float = 0.0

    @property
    def changed(self) -> bool:
        """Whether any image may have another outcome than in the previous version."""
        return bool(self.encoded or self.recognised or self.edited or self.resumed)

    @property
    def images_per_second(self) -> float:
        """Rate of the batches after the first, if there are any."""
        if self.encoded > self.first_encoded:
            return (self.encoded - self.first_encoded) / max(self.seconds - self.first_seconds, 1e-9)
        return self.encoded / max(self.seconds, 1e-9)


def encode_sources(
    sources: Sequence[Source],
    reusable: Sequence[ReusableEmbeddings],
    contents: ContentIndex,
    kept: KeptItems,
    encoder: Encoder,
    plan: PlanWriter,
    shards: ShardWriter,
    options: EncodeOptions,
    progress: Progress,
) -> tuple[Plan, EncodeStats]:
    """Read all sources once, encode images without a reusable embedding, and write shards and plan.

    Args:
        sources: in the order of the rows.
        reusable: where unchanged images are found, without reading them.
        contents: where images with another name or time are found, by their content.
        kept: what is kept of the previous version where a file or folder can't be reached.
        encoder: encodes the others.
        plan: where to write each item.
        shards: where to write the rows of images that were read.
        options: sizes and limits.
        progress: counts the images.

    Raises:
        EncoderError: the encoder failed; the shard writer keeps what was encoded before.
    """
    stats, begun = EncodeStats(), time.perf_counter()
    tasks = _decode_tasks(chain.from_iterable(sources), reusable, kept, plan, options, progress)
    executor = ThreadPoolExecutor(options.workers, thread_name_prefix="decode")
    decoded = _decode_ahead(tasks, Decoder(encoder, options.max_pixels, contents), executor, options)
    try:
        with closing(prefetch(_batches(decoded, options.batch_size), 2)) as batches:
            while (batch := _timed_next(batches, stats)) is not None:
                rows = _encode(batch, encoder)
                shards.add(rows)
                _count(batch, rows, stats, progress)
                if stats.encoded and not stats.first_seconds:
                    stats.first_encoded, stats.first_seconds = stats.encoded, time.perf_counter() - begun
    finally:
        executor.shutdown(cancel_futures=True)
    stats.seconds = time.perf_counter() - begun
    return plan.close(), stats


def _decode_tasks(
    items: Iterable[Item],
    reusable: Sequence[ReusableEmbeddings],
    kept: KeptItems,
    plan: PlanWriter,
    options: EncodeOptions,
    progress: Progress,
) -> Iterator[DecodeTask]:
    """Add every item to the plan; yield those that must be decoded."""
    seen = IdSet()
    for source_item in kept.pass_through(items, seen, plan):
        item, unique = _with_unique_id(source_item, seen)
        # An id with a lone surrogate can't occur: sources escape what is not UTF-8.
        item_hash = id_hash(item.id)
        item_fingerprint = fingerprint(item.fingerprint, options.max_pixels, DECODER_VERSION)
        record = {"id": item.id, "source": item.source, **item.columns}
        if not unique:
            plan.add(item_hash, item_fingerprint, record, (DuplicateId.code, _duplicate_message(item)), item.types)
            progress.add(rejected=1)
            continue
        plan.add(item_hash, item_fingerprint, record, types=item.types)
        known = find_row(reusable, item_hash, item_fingerprint)
        if known is None or options.verify_content:
            yield DecodeTask(item, item_hash, item_fingerprint, known)
        else:
            progress.add(reused=1)


def _with_unique_id(item: Item, seen: IdSet) -> tuple[Item, bool]:
    """Return the item under the first of its ids that was not seen before, and whether there was one."""
    if seen.add(id_hash(item.id)):
        return item, True
    if item.fallback_id is None:
        return item, False
    longer = replace(item, id=item.fallback_id)
    return longer, seen.add(id_hash(longer.id))


def _duplicate_message(item: Item) -> str:
    return (
        f"id {item.id!r} was seen before; write the sources as NAME=PATH to tell their ids apart, "
        "or name a column of unique values with --id-column"
    )


def _decode_ahead(
    tasks: Iterator[DecodeTask], decoder: Decoder, executor: ThreadPoolExecutor, options: EncodeOptions
) -> Generator[Outcome, None, None]:
    """Yield outcomes in the order of the tasks; the decode threads work up to two batches ahead."""
    submitted: Iterator[Future[Outcome]] = (executor.submit(decoder, task) for task in tasks)
    with closing(prefetch(submitted, 2 * options.batch_size + options.workers)) as futures:
        for future in futures:
            yield future.result()


def _batches(outcomes: Generator[Outcome, None, None], size: int) -> Iterator[list[Outcome]]:
    with closing(outcomes):  # a generator: closing it ends its threads
        while batch := list(islice(outcomes, size)):
            yield batch


def _timed_next(batches: Iterator[list[Outcome]], stats: EncodeStats) -> list[Outcome] | None:
    begun = time.perf_counter()
    batch = next(batches, None)
    stats.encoder_idle_seconds += time.perf_counter() - begun
    return batch


def _count(batch: list[Outcome], rows: list[EncodedRow], stats: EncodeStats, progress: Progress) -> None:
    recognised = sum(isinstance(outcome, Recognised) for outcome in batch)
    verified = sum(isinstance(outcome, Verified) for outcome in batch)
    rejected = sum(row.code is not None for row in rows)
    encoded = len(rows) - recognised - rejected
    stats.encoded += encoded
    stats.recognised += recognised
    stats.verified += verified
    stats.edited += sum(outcome.task.known is not None for outcome in batch) - verified
    progress.add(encoded=encoded, rejected=rejected, compared=recognised + verified)


def _encode(batch: list[Outcome], encoder: Encoder) -> list[EncodedRow]:
    """Return a row for each image of the batch but the verified ones, which have one already."""
    decoded = [outcome for outcome in batch if isinstance(outcome, Decoded)]
    rows = [_rejected_row(outcome.task, outcome.error) for outcome in batch if isinstance(outcome, Rejected)]
    rows += [outcome.row for outcome in batch if isinstance(outcome, Recognised)]
    if not decoded:
        return rows
    vectors = _vectors(encoder, decoded)
    for outcome, vector in zip(decoded, vectors.astype(np.float16), strict=True):
        finite = bool(np.isfinite(vector).all())
        rows.append(_encoded_row(outcome, vector.tobytes()) if finite else _rejected_row(outcome.task, _NOT_FINITE))
    return rows


_NOT_FINITE = EncoderError("the encoder's vector for this image is not finite; try another --engine")


def _vectors(encoder: Encoder, decoded: list[Decoded]) -> Float32:
    """Return the batch's (n, d) vectors; if the encoder fails, encode images one by one, NaN for those that fail."""
    pixels = np.stack([outcome.pixels for outcome in decoded])
    try:
        return encoder.encode_images(pixels)
    except EncoderError:
        return _one_by_one(encoder, pixels)
    except LookalikeError:
        raise
    except Exception as error:  # engines raise any type; out of memory is the usual cause
        raise EncoderError(
            f"the encoder {encoder.spec.name!r} failed on a batch of {len(decoded)}: {type(error).__name__}: {error}. "
            "What was encoded before is kept: run the same command again, with a smaller --batch-size if memory ran out"
        ) from error


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
    return EncodedRow(
        outcome.task.id_hash,
        outcome.task.fingerprint,
        vector,
        outcome.thumbnail,
        outcome.width,
        outcome.height,
        outcome.format,
        content_hash=outcome.content_hash,
        truncated=outcome.truncated or None,
    )


def _rejected_row(task: DecodeTask, error: LookalikeError) -> EncodedRow:
    return EncodedRow(task.id_hash, task.fingerprint, code=error.code, message=str(error))
