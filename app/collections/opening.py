"""Opening a version: files are verified, encoder and store loaded, and first queries sent, before it may serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

from app.collections.probe import Probe
from app.collections.runtime import Runtime
from app.collections.status import OpenVersion
from app.collections.versions import total_bytes
from app.collections.writes import CollectionWrites
from app.execution.originals import Originals
from app.execution.pipeline import QueryPipeline
from lookalike.errors import CollectionBusy, LookalikeError

if TYPE_CHECKING:
    from lookalike.collection import Collection
    from lookalike.search import Searcher

_BUSY_SECONDS, _BUSY_RETRY_SECONDS = 5.0, 0.1


async def open_version(root: Path, name: str, runtime: Runtime, reserve: Callable[[int], None]) -> OpenVersion:
    """Open a collection's current version and send it a first query of each kind.

    Args:
        root: the collection's folder.
        name: the collection's name.
        runtime: what all collections share.
        reserve: called with the bytes of the version's files, once they are known to be sound.

    Raises:
        LookalikeError: the version can't be opened, or a first query failed.
    """
    from lookalike.collection import open_collection  # imports FAISS and Arrow, which takes seconds

    collection = await asyncio.to_thread(open_collection, root, verify=runtime.settings.verify)
    size = total_bytes(collection.manifest)
    reserve(size)
    encoder_override = runtime.settings.encoder if root == runtime.settings.collection else None
    searcher = await _load(collection, encoder_override, runtime)
    is_new_encoder = _register_encoder(searcher, encoder_override, runtime)
    pipeline = QueryPipeline(name, searcher, *runtime.workers, runtime.pool, runtime.telemetry)
    if runtime.settings.originals:
        pipeline.originals = await asyncio.to_thread(Originals, collection, runtime.original_pool)
    await Probe(runtime.settings.open_timeout).check(pipeline)
    if is_new_encoder:
        await _warm_up(searcher, runtime)
    return OpenVersion(collection.manifest.version, pipeline, size)


async def open_writes(pipeline: QueryPipeline, runtime: Runtime) -> CollectionWrites:
    """Return the writer of the collection whose version a pipeline searches.

    A compaction holds the collection's lock for a moment at its end, and a service while it shuts down: wait for them.

    Raises:
        CollectionBusy: another process goes on writing to the collection.
        CollectionUnwritable, WritesDamaged, EncoderMismatch: it can't be written to.
    """
    from lookalike.writes.writer import Writer

    call = partial(Writer, pipeline.searcher.collection, max_pending=runtime.settings.max_pending)
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return CollectionWrites(await asyncio.to_thread(call), runtime.write_workers, pipeline)
        except CollectionBusy:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_BUSY_RETRY_SECONDS)


def is_on_milvus(pipeline: QueryPipeline) -> bool:
    """Return whether a collection's vectors are on Milvus."""
    from lookalike.stores.registry import MILVUS

    return pipeline.searcher.collection.manifest.store.kind == MILVUS


async def _load(collection: Collection, encoder_override: str | None, runtime: Runtime) -> Searcher:
    """Load the encoder, unless an equal one is in use, and the store."""
    from lookalike.bootstrap import EngineOptions, open_searcher  # imports torch or OpenVINO

    settings = runtime.settings
    call = partial(
        open_searcher,
        collection,
        encoder=encoder_override,
        engine_options=EngineOptions(settings.device, settings.engine),
        store_device=settings.store_device,
        limits=settings.limits(),
        loaded=runtime.encoders,
    )
    # The first encoder is loaded on a thread that owns the device. Later, that thread is busy with queries.
    searcher = await (asyncio.to_thread(call) if runtime.encoders else runtime.encoder_workers.run(call))
    _limit_threads(runtime)
    return searcher


def _limit_threads(runtime: Runtime) -> None:
    """Limit BLAS to one thread, and have the search workers limit OpenMP.

    Searches run concurrently with each other and the encoder: several BLAS threads for each would compete for the same
    cores (benchmarks/history/service.md). By now every copy of BLAS is loaded, FAISS's own included.
    """
    libraries = ThreadpoolController()
    libraries.limit(limits=1, user_api="blas")
    runtime.search_workers.libraries = libraries.select(user_api="openmp")


def _register_encoder(searcher: Searcher, encoder_override: str | None, runtime: Runtime) -> bool:
    """Add the encoder to those in use; return whether it is new."""
    key = (encoder_override or searcher.collection.manifest.encoder.name, searcher.encoder.spec.identity)
    is_new = runtime.encoders.get(key) is not searcher.encoder
    runtime.encoders[key] = searcher.encoder
    return is_new


async def _warm_up(searcher: Searcher, runtime: Runtime) -> None:
    """Encode batches of the largest size once, so that the first concurrent queries need not wait for it.

    Import pandas too: pyarrow does so for its first scalar, which took up to 10 s of the first filtered query.
    """
    timeout = runtime.settings.open_timeout
    await asyncio.to_thread(import_module, "pandas")
    try:
        async with asyncio.timeout(timeout):
            await runtime.encoder_workers.warm(searcher)
    except TimeoutError as error:
        raise LookalikeError(f"a first batch did not end within {timeout:g} s") from error
