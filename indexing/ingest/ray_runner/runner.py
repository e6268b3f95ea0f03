"""The runner that encodes on a Ray cluster."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain

from typing_extensions import override

from indexing.ingest.batches import EncodedBatch, encode_batch
from indexing.ingest.content_index import ContentIndex
from indexing.ingest.decoding import Decoder, DecodeTask, Rejected, read
from indexing.ingest.encoding import EncodeOptions, EncodeRunner
from indexing.ingest.prefetch import prefetch
from indexing.ingest.ray_runner.cluster import Place, worker_places
from indexing.ingest.ray_runner.pool import SourceShard, WorkerPool
from indexing.ingest.ray_runner.worker import ShardResult, WorkerInfo, WorkerSettings
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.protocol import Encoder
from lookalike.errors import SourceError, SourceNotFound
from lookalike.sources.item import HeldBytes

_MAX_SHARD_IMAGES = 1_024
_MAX_HELD_BYTES = 64 << 20
"""Bytes of images in a shard, where the source has read them already."""
_MIN_SHARDS_PER_WORKER = 4


class RayRunner(EncodeRunner):
    """Encodes on the cluster that this process is connected to.

    Args:
        encoder: for the few images that this process encodes itself.
        contents: images that were encoded before.
        options: sizes and limits.
        engine_options: how the workers' encoders run.
        gpus_per_worker: as in `ClusterSettings`.
        expected: approximate number of images; None if unknown.

    Attributes:
        images_by_machine: how many images each machine has encoded.
    """

    max_shard_seconds = 0.0

    def __init__(
        self,
        encoder: Encoder,
        contents: ContentIndex,
        options: EncodeOptions,
        engine_options: EngineOptions,
        gpus_per_worker: float | None,
        expected: int | None,
    ) -> None:
        self._encoder = encoder
        self._contents = contents
        self._options = options
        self._decoder = Decoder(encoder, options.max_pixels, contents)
        self._places = worker_places(gpus_per_worker)
        self._engine_options = engine_options
        self._shard_images = shard_images(expected, self._places, options)
        self.images_by_machine: Counter[str] = Counter()
        self.engine = ""

    @override
    def encode(self, tasks: Iterator[DecodeTask]) -> Generator[EncodedBatch, None, None]:
        with closing(prefetch(source_shards(tasks, self._shard_images), 2)) as shards:
            first = next(shards, None)
            if first is None:
                return
            with closing(WorkerPool(self._places, self._settings, self._contents.keys())) as pool:
                pool.wait_until_ready()
                yield EncodedBatch(is_start=True)
                for shard, worker, result in pool.map(chain([first], shards)):
                    self._require_same_files(shard, worker, result)
                    self.engine = ", ".join(pool.engines)
                    self.images_by_machine[worker.host] += result.batch.encoded
                    result.batch.encoder_idle_seconds /= len(self._places)
                    yield self._with_seen(shard, result)

    def _settings(self, place: Place, failures: int) -> WorkerSettings:
        """Return what a worker is started with: half the batch after each one that ended before it was ready."""
        asked, options = self._engine_options, self._options
        if failures:
            size = options.batch_size_on("cuda" if place.gpus else "cpu") >> failures
            options = replace(options, batch_size=max(1, size))
        device = "cpu" if asked.device == "auto" and not place.gpus else asked.device
        return WorkerSettings(
            place.host,
            os.getcwd(),
            self._encoder.spec.name,
            self._encoder.spec.identity,
            replace(asked, device=device, threads=place.cpus),
            options,
            options.decode_threads(place.cpus),
        )

    def _with_seen(self, shard: SourceShard, result: ShardResult) -> EncodedBatch:
        """Return the rows of a shard, with those of the images that a worker took for known ones."""
        if result.seen:
            seen = [task for task in shard.tasks if task.id_hash in result.seen]
            # An image that is not known after all, since only half of its hash is, is decoded and encoded here.
            outcomes = [
                self._decoder.recognise(task, result.seen[task.id_hash]) or self._decoder(task) for task in seen
            ]
            result.batch.extend(encode_batch(outcomes, self._encoder))
        return result.batch

    def _require_same_files(self, shard: SourceShard, worker: WorkerInfo, result: ShardResult) -> None:
        """Raise SourceError if a machine can't find files that this one can."""
        missing = [row for row in result.batch.rows if row.code == SourceNotFound.code]
        if len(missing) == len(shard.tasks) and not isinstance(read(shard.tasks[0]), Rejected):
            raise SourceError(
                f"the machine {worker.host} does not have the files that this one has: {missing[0].message}; mount the "
                "sources at the same path on all machines, or put them into a bucket"
            )


def shard_images(expected: int | None, places: list[Place], options: EncodeOptions) -> int:
    """Return the size of a source shard: small enough that all workers get several, and whole batches."""
    batch = options.batch_size_on("cuda" if any(place.gpus for place in places) else "cpu")
    fair = math.ceil(expected / (_MIN_SHARDS_PER_WORKER * len(places))) if expected else _MAX_SHARD_IMAGES
    return batch * max(1, min(fair, _MAX_SHARD_IMAGES) // batch)


def source_shards(tasks: Iterator[DecodeTask], size: int) -> Iterator[SourceShard]:
    """Yield the tasks in shards; one whose images are in memory already has at most 64 MB of them.

    Args:
        tasks: the images.
        size: of a shard.
    """
    shard: list[DecodeTask] = []
    held = 0
    for task in tasks:
        shard.append(task)
        held += len(task.load.data) if isinstance(task.load, HeldBytes) else 0
        if len(shard) == size or held >= _MAX_HELD_BYTES:
            yield SourceShard(shard)
            shard, held = [], 0
    if shard:
        yield SourceShard(shard)
