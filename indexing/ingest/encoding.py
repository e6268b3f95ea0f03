"""Items in, embedding shards out: the plan of all items, and the runner that encodes those without an embedding.

A reader thread checks the ids of the items and plans them; images with a reusable embedding go no further. The runner
encodes the others, in this process or on a cluster, and the calling thread writes its rows.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Protocol

from typing_extensions import override

from indexing.id_set import IdSet
from indexing.ingest.batches import EncodedBatch, encode_batch, encoded_batches, outcome_batches
from indexing.ingest.decoding import Decoder, DecodeTask
from indexing.ingest.kept_items import KeptItems
from indexing.ingest.left_out import LeftOutItems
from indexing.ingest.reusable_embeddings import ReusableEmbeddings, find_row
from indexing.ingest.shards import ShardWriter
from indexing.plan import Plan, PlanWriter
from indexing.progress import Progress
from lookalike.cores import available_cores
from lookalike.encoders.protocol import Encoder
from lookalike.errors import DuplicateId
from lookalike.metadata import id_hash
from lookalike.prepared_image import DECODER_VERSION
from lookalike.sources.item import Item, Source, fingerprint


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """Sizes and limits of the encoding.

    Attributes:
        batch_size: images per call of the encoder; None for 32 on a CPU, 256 on a GPU.
        workers: decode threads of each encoder; None for one per core, and at least `min_workers`.
        max_pixels: width x height above which an image is rejected.
        verify_content: whether to read all files, and compare their content with what was encoded.
        min_workers: more than cores where threads wait for a server.
    """

    batch_size: int | None
    workers: int | None
    max_pixels: int
    verify_content: bool = False
    min_workers: int = 1

    def batch_size_on(self, device: str) -> int:
        """Return the batch size of an encoder on a device, `cpu` or `cuda`."""
        return self.batch_size or _BATCH_SIZES[device]

    def decode_threads(self, cores: int) -> int:
        """Return the number of decode threads of an encoder that has these cores."""
        return self.workers or max(cores, self.min_workers)


_BATCH_SIZES = {"cpu": 32, "cuda": 256}


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
        first_encoded: images of the first batch; 0 on a cluster.
        first_seconds: until the first batch was encoded, which includes compiling the model, or until a cluster's first
            encoder was loaded.
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

    def count(self, batch: EncodedBatch, seconds: float) -> None:
        """Add a batch that was finished after this many seconds."""
        self.encoded += batch.encoded
        self.recognised += batch.recognised
        self.verified += batch.verified
        self.edited += batch.edited
        self.encoder_idle_seconds += batch.encoder_idle_seconds
        if not self.first_seconds and (self.encoded or batch.is_start):
            self.first_encoded, self.first_seconds = self.encoded, seconds

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


class EncodeRunner(Protocol):
    """Encodes images, in this process or on a cluster."""

    max_shard_seconds: float
    """Maximum age of the oldest row that is not in a shard; 0 if each batch that it yields becomes a shard."""

    engine: str
    """Engine, precision and device of the encoder; of all encoders, once they were loaded."""
    images_by_machine: Mapping[str, int]
    """How many images each machine of a cluster has encoded; empty if this process encodes."""

    def encode(self, tasks: Iterator[DecodeTask]) -> Generator[EncodedBatch, None, None]:
        """Yield the rows of the images, in any order; closing the generator stops it.

        Raises:
            EncoderError: the encoder can't be loaded, or failed.
        """
        ...


class LocalRunner(EncodeRunner):
    """Encodes in this process.

    Args:
        decoder: of the images.
        encoder: encodes them.
        options: sizes and limits.
    """

    max_shard_seconds = 5.0

    def __init__(self, decoder: Decoder, encoder: Encoder, options: EncodeOptions) -> None:
        self._decoder, self._encoder, self._options = decoder, encoder, options
        self.engine = engine_of(encoder)
        self.images_by_machine = {}

    @override
    def encode(self, tasks: Iterator[DecodeTask]) -> Generator[EncodedBatch, None, None]:
        workers = self._options.decode_threads(available_cores())
        size = self._options.batch_size_on(self._encoder.spec.device)
        executor = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            with closing(outcome_batches(tasks, self._decoder, executor, 2 * size + workers, size)) as batches:
                yield from encoded_batches(batches, partial(encode_batch, encoder=self._encoder))
        finally:
            executor.shutdown(cancel_futures=True)


def engine_of(encoder: Encoder) -> str:
    """Return engine, precision and device of an encoder."""
    return f"{encoder.spec.engine} {encoder.spec.precision} on {encoder.spec.device}"


def encode_sources(
    sources: Sequence[Source],
    reusable: Sequence[ReusableEmbeddings],
    kept: KeptItems,
    left_out: LeftOutItems,
    runner: EncodeRunner,
    plan: PlanWriter,
    shards: ShardWriter,
    options: EncodeOptions,
    progress: Progress,
) -> tuple[Plan, EncodeStats]:
    """Read all sources once, encode images without a reusable embedding, and write shards and plan.

    Args:
        sources: in the order of the rows.
        reusable: where unchanged images are found, without reading them.
        kept: what is kept of the previous version where a file or folder can't be reached.
        left_out: items that are neither encoded nor planned.
        runner: encodes the others.
        plan: where to write each item.
        shards: where to write the rows of images that were read.
        options: sizes and limits.
        progress: counts the images.

    Raises:
        EncoderError: the encoder failed; the shard writer keeps what was encoded before.
    """
    stats, begun = EncodeStats(), time.perf_counter()
    tasks = _decode_tasks(chain.from_iterable(sources), reusable, kept, left_out, plan, options, progress)
    with closing(runner.encode(tasks)) as batches:
        for batch in batches:
            shards.add(batch.rows)
            stats.count(batch, time.perf_counter() - begun)
            progress.add(encoded=batch.encoded, rejected=batch.rejected, compared=batch.recognised + batch.verified)
    stats.seconds = time.perf_counter() - begun
    return plan.close(), stats


def _decode_tasks(
    items: Iterable[Item],
    reusable: Sequence[ReusableEmbeddings],
    kept: KeptItems,
    left_out: LeftOutItems,
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
        if left_out.takes(item_hash):
            plan.leave_out(item_hash, item_fingerprint, record, item.types)
            continue
        if not unique:
            plan.add(item_hash, item_fingerprint, record, (DuplicateId.code, _duplicate_message(item)), item.types)
            progress.add(rejected=1)
            continue
        plan.add(item_hash, item_fingerprint, record, types=item.types)
        known = find_row(reusable, item_hash, item_fingerprint)
        if known is None or options.verify_content:
            known_content = None if known is None else known.read()["content_hash"] or b""
            yield DecodeTask(item.load, item_hash, item_fingerprint, known_content)
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
