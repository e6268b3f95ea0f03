"""The workers of a job: each has two source shards, so that it decodes one while it encodes the other."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from indexing.ingest.decoding import DecodeTask
from indexing.ingest.ray_runner.cluster import Place
from indexing.ingest.ray_runner.worker import ShardResult, Worker, WorkerInfo, WorkerSettings
from lookalike.errors import ClusterUnavailable, EncoderError, LookalikeError
from lookalike.messages import number_of
from lookalike.types import UInt64

_SHARDS_PER_WORKER = 2
_MAX_ATTEMPTS = 3
MAX_START_SECONDS = 600.0
"""How long no worker may be ready: the cluster has other jobs, or starts more machines."""
_WARN_SECONDS = 30.0
_POLL_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class SourceShard:
    """Images that one worker encodes together.

    Attributes:
        tasks: the images.
        attempts: workers that ended while they had it.
    """

    tasks: Sequence[DecodeTask]
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class _Starting:
    """A worker whose encoder is being loaded.

    Attributes:
        place: where it runs.
        actor: Ray's handle.
        failures: workers that ended before it, in this place and before they were ready.
    """

    place: Place
    actor: Any
    failures: int


@dataclass(eq=False, slots=True)
class _Ready:
    """A worker that encodes.

    Attributes:
        place: where it runs.
        actor: Ray's handle.
        info: what it reported.
        shards: Ray's handle of a call -> the source shard that it encodes.
    """

    place: Place
    actor: Any
    info: WorkerInfo
    shards: dict[Any, SourceShard] = field(default_factory=dict)


class WorkerPool:
    """Workers on a cluster, and the source shards that they encode.

    Args:
        places: of the workers.
        settings: (place, workers that ended there before they were ready) -> settings of the next one.
        keys: as for `Worker`.

    Attributes:
        engines: what the workers' encoders run on, in the order in which they were loaded.
    """

    def __init__(self, places: Sequence[Place], settings: Callable[[Place, int], WorkerSettings], keys: UInt64) -> None:
        self._settings = settings
        self._keys = ray.put(keys)
        self._starting: dict[Any, _Starting] = {}
        self._ready: list[_Ready] = []
        self._to_retry: deque[SourceShard] = deque()
        self._unready_since, self._has_warned = time.monotonic(), False
        self.engines: dict[str, None] = {}
        for place in places:
            self._start(place)

    def wait_until_ready(self) -> None:
        """Wait until the first worker has loaded its encoder.

        Raises:
            EncoderError: the encoder can't be loaded on a machine.
            ClusterUnavailable: no worker could be started for ten minutes.
        """
        while not self._ready:
            done, _ = ray.wait([*self._starting], timeout=_POLL_SECONDS)
            for call in done:
                self._add_loaded(call)
            self._require_workers()

    def close(self) -> None:
        """End the workers."""
        workers: list[_Ready | _Starting] = [*self._ready, *self._starting.values()]
        for worker in workers:
            ray.kill(worker.actor)

    def map(self, shards: Iterator[SourceShard]) -> Generator[tuple[SourceShard, WorkerInfo, ShardResult], None, None]:
        """Yield the shards in the order in which they are finished: the shard, who encoded it, and the result.

        Raises:
            EncoderError: the encoder can't be loaded on a machine, or failed, or a shard ended three workers.
            ClusterUnavailable: no worker could be started for ten minutes.
        """
        while self._submit(shards) or any(ready.shards for ready in self._ready):
            yield from self._finished()

    def _submit(self, shards: Iterator[SourceShard]) -> bool:
        """Give each worker its two shards; return False if there are no more shards."""
        for _ in range(_SHARDS_PER_WORKER):
            for worker in self._ready:
                if len(worker.shards) < _SHARDS_PER_WORKER:
                    shard = self._to_retry.popleft() if self._to_retry else next(shards, None)
                    if shard is None:
                        return False
                    worker.shards[worker.actor.encode.remote(shard.tasks, shard.attempts)] = shard
        return True

    def _finished(self) -> Iterator[tuple[SourceShard, WorkerInfo, ShardResult]]:
        """Wait for a call; yield its result if it was a shard's."""
        calls = [*self._starting, *(call for worker in self._ready for call in worker.shards)]
        done, _ = ray.wait(calls, timeout=_POLL_SECONDS)
        for call in done:
            if call in self._starting:
                self._add_loaded(call)
            else:
                worker = next(worker for worker in self._ready if call in worker.shards)
                result = self._get(call, worker)
                if isinstance(result, RayError):
                    self._replace(worker, result)
                else:
                    yield worker.shards.pop(call), worker.info, result
        self._require_workers()

    def _get(self, call: Any, worker: _Starting | _Ready) -> Any:
        """Return the result of a call, or Ray's error if the worker has ended; raise what the worker raised."""
        try:
            return ray.get(call)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, LookalikeError):
                raise cause from None
            message = f"a worker on {worker.place.host} failed: {type(cause).__name__}: {cause}"
            raise EncoderError(message) from error
        except RayError as error:
            return error

    def _start(self, place: Place, failures: int = 0) -> None:
        actor: Any = ray.remote(Worker).options(
            num_cpus=place.cpus,
            num_gpus=place.gpus,
            max_concurrency=_SHARDS_PER_WORKER,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node_id, soft=True),
        )
        actor = actor.remote(self._settings(place, failures), self._keys)
        self._starting[actor.load.remote()] = _Starting(place, actor, failures)

    def _add_loaded(self, call: Any) -> None:
        """Add a worker whose encoder is loaded to those that encode; start another one if it has ended."""
        worker = self._starting.pop(call)
        info = self._get(call, worker)
        if not isinstance(info, RayError):
            self.engines[info.engine] = None
            self._ready.append(_Ready(worker.place, worker.actor, info))
            return
        failures = worker.failures + 1
        if failures == _MAX_ATTEMPTS:
            raise EncoderError(
                f"{failures} workers on {worker.place.host} ended before their encoder was loaded: {_last_line(info)}"
            )
        self._start(worker.place, failures)

    def _replace(self, worker: _Ready, error: RayError) -> None:
        """Start another worker in the place of one that has ended; its shards are for the next free worker."""
        self._ready.remove(worker)
        ray.kill(worker.actor)
        shards = list(worker.shards.values())
        images, host = sum(len(shard.tasks) for shard in shards), worker.place.host
        _log.warning("a worker on %s ended; its %s are encoded again", host, number_of(images, "image"))
        for shard in shards:
            shard.attempts += 1
            if shard.attempts == _MAX_ATTEMPTS:
                raise EncoderError(
                    f"{_MAX_ATTEMPTS} workers ended while they encoded the same {len(shard.tasks):,} images, the last "
                    f"one on {host}: {_last_line(error)}. What was encoded before is kept: run the same command again, "
                    "with a smaller --batch-size or fewer --workers if memory ran out"
                )
        self._to_retry.extend(shards)
        self._start(worker.place)

    def _require_workers(self) -> None:
        """Warn if no worker has been ready for a while, and raise ClusterUnavailable if it lasts."""
        if self._ready:
            self._unready_since, self._has_warned = time.monotonic(), False
            return
        seconds = time.monotonic() - self._unready_since
        if seconds > MAX_START_SECONDS:
            raise ClusterUnavailable(f"no worker could be started for {seconds:.0f} seconds: {self._needs()}")
        if seconds > _WARN_SECONDS and not self._has_warned:
            _log.warning("no worker is ready after %.0f seconds, still waiting: %s", seconds, self._needs())
            self._has_warned = True

    def _needs(self) -> str:
        place = next(iter(self._starting.values())).place
        free = {name: ray.available_resources().get(name, 0.0) for name in ("CPU", "GPU")}
        return (
            f"it needs {place.cpus} CPUs and {place.gpus:g} GPUs on {place.host}; free in the cluster are "
            f"{free['CPU']:g} and {free['GPU']:g}"
        )


def _last_line(error: RayError) -> str:
    return str(error).strip().rpartition("\n")[2]
