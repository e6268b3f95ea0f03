"""Threads, settings and encoders that all collections of a service share."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from app.execution.batcher import Batcher
from app.execution.workers import DecodeWorkers, EncoderWorkers, SearchWorkers, WriteWorkers
from app.settings import Settings
from app.telemetry import Telemetry

if TYPE_CHECKING:
    from lookalike.encoders.protocol import Encoder
    from lookalike.types import Identity


@dataclass(frozen=True, slots=True)
class Runtime:
    """What all collections of a service share.

    Attributes:
        original_pool: opens originals, whose disk may hang: other requests have threads of their own.
        encoders: the encoders in use, by requested name and identity. Collections with the same one share it.
        opening_lock: held while a collection is opened; one is opened at a time.
    """

    settings: Settings
    decode_workers: DecodeWorkers
    encoder_workers: EncoderWorkers
    search_workers: SearchWorkers
    write_workers: WriteWorkers
    pool: ThreadPoolExecutor
    original_pool: ThreadPoolExecutor
    telemetry: Telemetry
    encoders: WeakValueDictionary[tuple[str, Identity], Encoder] = field(default_factory=WeakValueDictionary)
    opening_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def workers(self) -> tuple[DecodeWorkers, EncoderWorkers, SearchWorkers]:
        """The worker threads of a query's steps."""
        return self.decode_workers, self.encoder_workers, self.search_workers

    @property
    def batchers(self) -> tuple[Batcher, ...]:
        """All worker threads."""
        return *self.workers, self.write_workers
