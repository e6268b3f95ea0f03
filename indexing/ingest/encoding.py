"""Images in, embedding shards out: decode -> preprocess -> encode, so that the encoder never waits.

    reader thread       sources -> ids checked -> plan; what an origin holds unchanged goes no further
    decode threads      bytes -> (3, S, S) uint8 and thumbnail (Pillow releases the GIL)
    gathering thread    decoded images -> batches, in the order of the sources
    calling thread      encoder -> shards

Every queue between them is bounded, so memory is, too. It knows nothing of collections on disk.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np

from indexing.identities import IdSet
from indexing.ingest.decoding import Decoded, Decoder, Job, Refused
from indexing.ingest.prefetch import prefetch
from indexing.ingest.shards import Encoded, Origin, ShardWriter
from indexing.plan import Plan, PlanWriter
from indexing.progress import Progress
from lookalike.encoders.protocol import Encoder
from lookalike.errors import DuplicateId, EncoderError, LookalikeError
from lookalike.metadata import id_hash
from lookalike.sources.item import Item, Source, fingerprint
from lookalike.types import Float32, UInt8

DECODER_VERSION = 1
"""Raised when `lookalike.images` makes other pixels of the same bytes: everything is then encoded again."""

Outcome = Decoded | Refused


@dataclass(frozen=True, slots=True)
class Budget:
    """How the work is cut.

    Attributes:
        batch_size: images a call of the encoder gets.
        workers: decode threads.
        max_pixels: width x height above which an image is refused.
    """

    batch_size: int
    workers: int
    max_pixels: int


@dataclass(slots=True)
class Effort:
    """What the encoding took.

    Attributes:
        encoded: images that went through the encoder.
        seconds: from the first item to the last batch.
        waited: seconds of these in which the encoder had no batch.
        first_encoded: images of the first batch.
        first_seconds: until the first batch was encoded, which includes compiling the model.
    """

    encoded: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    first_encoded: int = 0
    first_seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Of the batches after the first, if there are any."""
        if self.encoded > self.first_encoded:
            return (self.encoded - self.first_encoded) / max(self.seconds - self.first_seconds, 1e-9)
        return self.encoded / max(self.seconds, 1e-9)


def encode_sources(
    sources: Sequence[Source],
    origins: Sequence[Origin],
    encoder: Encoder,
    plan: PlanWriter,
    shards: ShardWriter,
    budget: Budget,
    progress: Progress,
) -> tuple[Plan, Effort]:
    """Walks all sources once, encodes what no origin holds, and writes shards and plan.

    Raises:
        EncoderError: the encoder failed; what was encoded before is kept by the shard writer.
    """
    effort, begun = Effort(), time.perf_counter()
    jobs = _new_jobs(chain.from_iterable(sources), origins, plan, budget, progress)
    executor = ThreadPoolExecutor(budget.workers, thread_name_prefix="decode")
    decoded = _decode_ahead(jobs, Decoder(encoder, budget.max_pixels), executor, budget)
    try:
        with closing(prefetch(_batches(decoded, budget.batch_size), 2)) as batches:
            while (batch := _timed_next(batches, effort)) is not None:
                rows = _encode(batch, encoder)
                shards.add(rows)
                encoded = sum(row.code is None for row in rows)
                effort.encoded += encoded
                if not effort.first_seconds:
                    effort.first_encoded, effort.first_seconds = encoded, time.perf_counter() - begun
                progress.add(encoded=encoded, rejected=len(rows) - encoded)
    finally:
        executor.shutdown(cancel_futures=True)
    effort.seconds = time.perf_counter() - begun
    return plan.close(), effort


def _new_jobs(
    items: Iterable[Item], origins: Sequence[Origin], plan: PlanWriter, budget: Budget, progress: Progress
) -> Iterator[Job]:
    """Enters every item into the plan and passes on those that have to be decoded."""
    seen = IdSet()
    for found in items:
        item, fresh = _under_a_free_id(found, seen)
        # An id with a lone surrogate can't occur: sources escape what is not UTF-8.
        identity = id_hash(item.id)
        changes = fingerprint(item.fingerprint, budget.max_pixels, DECODER_VERSION)
        record = {"id": item.id, "source": item.source, **item.columns}
        if not fresh:
            plan.add(identity, changes, record, (DuplicateId.code, _duplicate_message(item)))
            progress.add(rejected=1)
            continue
        plan.add(identity, changes, record)
        if _is_known(identity, changes, origins):
            progress.add(reused=1)
        else:
            yield Job(item, identity, changes)


def _under_a_free_id(item: Item, seen: IdSet) -> tuple[Item, bool]:
    """The item under the first of its ids that was not seen before, and whether there was one."""
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


def _is_known(identity: int, changes: int, origins: Sequence[Origin]) -> bool:
    hashes, fingerprints = np.array([identity], np.uint64), np.array([changes], np.uint64)
    return any(origin.find(hashes, fingerprints)[0] >= 0 for origin in origins)


def _decode_ahead(
    jobs: Iterator[Job], decoder: Decoder, executor: ThreadPoolExecutor, budget: Budget
) -> Generator[Outcome, None, None]:
    """Outcomes in the order of the jobs, while the decode threads work ahead by two batches."""
    submitted: Iterator[Future[Outcome]] = (executor.submit(decoder, job) for job in jobs)
    with closing(prefetch(submitted, 2 * budget.batch_size + budget.workers)) as futures:
        for future in futures:
            yield future.result()


def _batches(outcomes: Generator[Outcome, None, None], size: int) -> Iterator[list[Outcome]]:
    with closing(outcomes):  # a generator: closing it ends its threads
        while batch := list(islice(outcomes, size)):
            yield batch


def _timed_next(batches: Iterator[list[Outcome]], effort: Effort) -> list[Outcome] | None:
    begun = time.perf_counter()
    batch = next(batches, None)
    effort.waited += time.perf_counter() - begun
    return batch


def _encode(batch: list[Outcome], encoder: Encoder) -> list[Encoded]:
    decoded = [outcome for outcome in batch if isinstance(outcome, Decoded)]
    rows = [_refused(outcome.job, outcome.error) for outcome in batch if isinstance(outcome, Refused)]
    if not decoded:
        return rows
    vectors = _vectors(encoder, decoded)
    for outcome, vector in zip(decoded, vectors.astype(np.float16), strict=True):
        sound = bool(np.isfinite(vector).all())
        rows.append(_encoded(outcome, vector.tobytes()) if sound else _refused(outcome.job, _NOT_FINITE))
    return rows


_NOT_FINITE = EncoderError("the encoder's vector for this image is not finite; another --engine may do")


def _vectors(encoder: Encoder, decoded: list[Decoded]) -> Float32:
    """The batch's vectors (n, d); where the encoder refuses it, each image alone, NaN for those that fail again."""
    pixels = np.stack([outcome.pixels for outcome in decoded])
    try:
        return encoder.encode_images(pixels)
    except EncoderError:
        return _one_by_one(encoder, pixels)
    except LookalikeError:
        raise
    except Exception as error:  # an engine fails with whatever it likes; out of memory is the usual one
        raise EncoderError(
            f"the encoder {encoder.spec.name!r} failed on a batch of {len(decoded)}: {type(error).__name__}: {error}. "
            "What was encoded before is kept: run the same command again, with a smaller --batch-size if memory ran out"
        ) from error


def _one_by_one(encoder: Encoder, pixels: UInt8) -> Float32:
    """Raises what the encoder said where not a single image passes: then it is not the images' fault."""
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


def _encoded(outcome: Decoded, vector: bytes) -> Encoded:
    job = outcome.job
    return Encoded(
        job.id_hash, job.fingerprint, vector, outcome.thumbnail, outcome.width, outcome.height, outcome.format
    )


def _refused(job: Job, error: LookalikeError) -> Encoded:
    return Encoded(job.id_hash, job.fingerprint, code=error.code, message=str(error))
