"""The process on a machine of the cluster: it loads the encoder once, and encodes source shards."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field

import numpy as np

from indexing.ingest.batches import EncodedBatch, encode_batch, encode_pixels, encoded_batches, outcome_batches
from indexing.ingest.content_index import ContentIndex, content_key
from indexing.ingest.decoding import Decoder, DecodeTask, Outcome, Rejected, Seen, Verified, read
from indexing.ingest.encoding import EncodeOptions, engine_of
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.registry import load_encoder
from lookalike.errors import EncoderError
from lookalike.prepared_image import content_hash
from lookalike.types import Identity, UInt64


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is started with.

    Attributes:
        host: address of its machine.
        folder: to which relative paths of the sources are relative.
        encoder: its name.
        identity: of the encoder on the machine that plans.
        engine_options: how it runs.
        options: sizes and limits.
        decode_threads: number of threads that read and decode.
    """

    host: str
    folder: str
    encoder: str
    identity: Identity
    engine_options: EngineOptions
    options: EncodeOptions
    decode_threads: int


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker reports of itself.

    Attributes:
        host: address of its machine.
        pid: its process.
        engine: engine, precision and device of its encoder.
    """

    host: str
    pid: int
    engine: str


@dataclass(slots=True)
class ShardResult:
    """The outcome of a source shard.

    Attributes:
        batch: rows and counts.
        seen: hash of an item's id -> hash of its content, which may have been encoded before.
    """

    batch: EncodedBatch = field(default_factory=EncodedBatch)
    seen: dict[int, bytes] = field(default_factory=dict)


class Worker:
    """Encodes source shards; `encode` is called from two threads, so that one decodes while the other encodes.

    Args:
        settings: as for all workers.
        keys: (n,) uint64, ascending: the keys of the contents that were encoded before.
    """

    def __init__(self, settings: WorkerSettings, keys: UInt64) -> None:
        self._settings = settings
        self._keys = keys
        self._encoding = threading.Lock()
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")

    def load(self) -> WorkerInfo:
        """Load the encoder, and compile it for the size of the batches.

        Raises:
            EncoderError: it can't be loaded here, or has other weights than where the items are planned.
        """
        settings = self._settings
        with suppress(OSError):
            os.chdir(settings.folder)
        try:
            self._encoder = load_encoder(settings.encoder, settings.engine_options)
        except EncoderError as error:
            raise type(error)(f"on the machine {settings.host}: {error}") from None
        if self._encoder.spec.identity != settings.identity:
            raise EncoderError(
                f"the encoder {settings.encoder!r} on the machine {settings.host} is another than here; install the "
                "same release and the same weights on both"
            )
        self._decoder = Decoder(self._encoder, settings.options.max_pixels, ContentIndex(()))
        size, side = settings.options.batch_size_on(self._encoder.spec.device), self._encoder.spec.image_size
        encode_pixels(self._encoder, np.zeros((size, 3, side, side), np.uint8))
        return WorkerInfo(settings.host, os.getpid(), engine_of(self._encoder))

    def encode(self, tasks: Sequence[DecodeTask], halvings: int = 0) -> ShardResult:
        """Decode and encode a source shard.

        Args:
            tasks: the shard.
            halvings: how often the batch is halved, since memory did not suffice before.
        """
        options = self._settings.options
        size = max(1, options.batch_size_on(self._encoder.spec.device) >> halvings)
        result = ShardResult()

        def encode(outcomes: Sequence[Outcome | Seen]) -> EncodedBatch:
            result.seen |= {outcome.task.id_hash: outcome.content for outcome in outcomes if isinstance(outcome, Seen)}
            with self._encoding:
                return encode_batch([o for o in outcomes if not isinstance(o, Seen)], self._encoder)

        ahead = 2 * size + self._settings.decode_threads
        with closing(outcome_batches(tasks, self._decode, self._threads, ahead, size)) as batches:
            for batch in encoded_batches(batches, encode):
                result.batch.extend(batch)
        return result

    def _decode(self, task: DecodeTask) -> Outcome | Seen:
        data = read(task)
        if isinstance(data, Rejected):
            return data
        content = content_hash(data)
        if content == task.known_content:
            return Verified(task)
        return Seen(task, content) if self._may_be_known(content) else self._decoder.decode(task, content, data)

    def _may_be_known(self, content: bytes) -> bool:
        key = content_key(content)
        i = int(np.searchsorted(self._keys, key))
        return i < len(self._keys) and bool(self._keys[i] == key)
