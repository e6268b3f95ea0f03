"""Compaction: the next version of a collection, from its current version and the writes that it lacks.

No image is encoded: vectors, thumbnails and fingerprints are copied. A service may write meanwhile; its later writes
stay pending. A run that was killed leaves the collection as it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexing.build.budget import IndexBudget
from indexing.build.version import BuildSpec, build_version
from indexing.ingest.previous_version import PreviousVersion
from indexing.metadata_tables import conform
from indexing.progress import Progress
from indexing.row_stream import ENCODED_SCHEMA, REJECTED_SCHEMA, RowChunk, RowStream
from indexing.work_folder import exclusive
from indexing.written_rows import (
    ROWS_AT_ONCE,
    columns_of,
    opened_log,
    patched,
    put_chunks,
    release_held,
    stored_metadata,
    with_id_hashes,
)
from lookalike.bootstrap import EngineOptions, load_encoder
from lookalike.collection import REJECTED, Collection, current_version, open_collection
from lookalike.disk_errors import translated_disk_errors
from lookalike.encoders.protocol import TextEncoder
from lookalike.errors import CollectionUnwritable, EncoderError, SourceError
from lookalike.manifest import Manifest
from lookalike.paths import exists
from lookalike.stores.registry import EXACT, MILVUS, TORCH_EXACT, resolve_kind
from lookalike.types import Bool, EncoderSpec, Float32, Int64
from lookalike.writes.entries import Entry
from lookalike.writes.log import WriteLog
from lookalike.writes.writer import require_encoder

_KEPT_ON_DISK_FULL = "the collection is unchanged, and its writes are kept"


@dataclass(frozen=True, slots=True)
class CompactSummary:
    """Result of a compaction.

    Attributes:
        collection: the folder.
        version: the current version's name.
        unchanged: True if no write was pending, so that no version was written.
        encoder: name of the encoder.
        store: kind of the store.
        items: of the version.
        added: items that the version before did not have.
        replaced: items that were written anew under their id.
        changed: items whose metadata was changed.
        deleted: items of the version before that were deleted.
        writes: number of the last write that the version holds.
        seconds: of the whole run.
        recall: the manifest's report, without the sweep of parameters.
    """

    collection: str
    version: str
    unchanged: bool
    encoder: str
    store: str
    items: int
    added: int
    replaced: int
    changed: int
    deleted: int
    writes: int
    seconds: float
    recall: dict[str, Any]


def run_compact(root: Path, progress: Progress | None = None) -> CompactSummary:
    """Build and publish a version that holds the pending writes of a collection, if there are any.

    Raises:
        CollectionNotFound: there is no collection at `root`.
        CollectionBusy: another job writes to the collection; a service that does is no obstacle.
        CollectionUnwritable: Milvus searches the collection, or its folder can't be written to.
        CollectionError: the current version or the log of writes is damaged.
        SourceError: all items are deleted.
        DiskFull: the collection is unchanged.
        StoreError: the store can't be built.
    """
    begun = time.perf_counter()
    current_version(root)  # the lock would create the folder
    with translated_disk_errors(root, _KEPT_ON_DISK_FULL), exclusive(root), progress or Progress(quiet=True) as shown:
        version = open_collection(root)
        if version.manifest.store.kind == MILVUS:
            raise CollectionUnwritable(f"{root} is searched by Milvus, which can't be compacted; index again instead")
        with opened_log(root, version.manifest) as log:
            if log is None:
                return _summary(root, version.manifest, None, begun)
            manifest, pending = _compacted(version, log, shown)
            release_held(root, log, manifest.writes)
        return _summary(root, manifest, pending, begun)


def _compacted(version: Collection, log: WriteLog, progress: Progress) -> tuple[Manifest, _Pending | None]:
    """Publish a version with all writes of this moment; None for these and the same version if there are none."""
    before = version.manifest
    with ExitStack() as moment:
        moment.enter_context(log.snapshot())
        log.require_fits(before.writes, before.version)
        require_encoder(version, log)
        if not log.count_pending(before.writes):
            return before, None
        pending = _Pending(version, log)
        if not pending.items:
            raise SourceError(
                f"all items of {version.root} are deleted, and a version needs one: add an item, or remove the folder"
            )
        progress.begin(pending.items)
        columns = columns_of(version, log)
        rows = RowStream(
            _chunks(version, log, pending, moment, progress),
            pa.schema(list(columns.types.items())),
            pending.items + before.counts.rejected,
            _KEPT_ON_DISK_FULL,
            before.counts.skipped,
            is_complete=True,
        )
        manifest = build_version(
            version.root, rows, _encoder(before, pending.items), _spec(before, log), progress.phase
        )
    return manifest, pending


class _Pending:
    """What the pending writes do to the rows of a version.

    Attributes:
        live: (n,) bool, the rows that stay.
        changed: (n,) bool, those of them whose metadata is patched.
        added: items that the version does not have.
        replaced: items that were written anew under their id.
        deleted: items of the version that are deleted.
    """

    def __init__(self, version: Collection, log: WriteLog) -> None:
        self.live: Bool = np.ones(len(version), np.bool_)
        self.changed: Bool = np.zeros(len(version), np.bool_)
        self.added = self.replaced = self.deleted = 0
        for entry in log.all_entries(version.manifest.writes):
            row = version.metadata.find(entry.id)
            if entry.kind == "patch":  # without a row, the sources no longer have the item
                if row is not None:
                    self.changed[row] = True
                continue
            if row is not None:
                self.live[row] = False
            if entry.kind == "put":
                self.added += row is None
                self.replaced += row is not None
            else:
                self.deleted += row is not None

    @property
    def items(self) -> int:
        """Number of items of the version with the writes."""
        return int(np.count_nonzero(self.live)) + self.added + self.replaced


def _chunks(
    version: Collection, log: WriteLog, pending: _Pending, moment: ExitStack, progress: Progress
) -> Iterator[RowChunk]:
    """Yield the rejected items, the rows that stay, and the items that were put.

    Args:
        version: the current one.
        log: at one moment.
        pending: what its writes do.
        moment: closed after the last read of the log, so that it need not keep this moment for longer.
        progress: counts the items.
    """
    columns = columns_of(version, log)
    schema = pa.schema(list(columns.types.items()))
    for table in _rejected(version):
        yield RowChunk(ENCODED_SCHEMA.empty_table(), schema.empty_table(), table)
    stored = PreviousVersion(version)
    for start in range(0, len(version), ROWS_AT_ONCE):
        rows = np.flatnonzero(pending.live[start : start + ROWS_AT_ONCE])
        if len(rows):
            metadata = stored_metadata(version, start, ROWS_AT_ONCE).take(pa.array(rows))
            changes = _changes(metadata, log, np.flatnonzero(pending.changed[start + rows]))
            encoded = with_id_hashes(stored.take(start + rows), metadata)
            yield RowChunk(encoded, patched(metadata, changes, schema, columns), REJECTED_SCHEMA.empty_table())
            progress.add(reused=len(rows))
    puts = (entry for entry in log.pending(version.manifest.writes) if entry.kind == "put")
    for chunk in put_chunks(puts, columns, is_complete=True):
        yield chunk
        progress.add(reused=len(chunk.encoded))
    moment.close()


def _rejected(version: Collection) -> Iterator[pa.Table]:
    """Yield the rows of a version's `rejected.parquet`."""
    path = version.folder / REJECTED
    if exists(path):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield conform(pa.Table.from_batches([batch]), REJECTED_SCHEMA)


def _changes(metadata: pa.Table, log: WriteLog, positions: Int64) -> dict[int, Entry]:
    """Return the entries that patch rows of a table, by the rows' positions."""
    ids = metadata.column("id")
    entries = {int(position): log.find(ids[int(position)].as_py()) for position in positions}
    return {position: entry for position, entry in entries.items() if entry is not None}


def _spec(before: Manifest, log: WriteLog) -> BuildSpec:
    """Return the settings of the version before; of its limits, the recall and the choice that they led to."""
    store = before.store
    recall = before.recall.get("target", IndexBudget().recall)
    return BuildSpec(
        str(store.params.get("asked", store.kind)),
        IndexBudget(recall),
        tuple(before.sources),
        before.inputs,
        log.last,
        before.recall.get("plan"),
    )


class _DescribedEncoder:
    """The encoder of a version as its manifest describes it, which is not loaded."""

    def __init__(self, manifest: Manifest) -> None:
        self.spec = EncoderSpec(**manifest.encoder.model_dump())


class _TextEncoder(_DescribedEncoder):
    """The same encoder, which is loaded if texts must be encoded: an index is tuned with them."""

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Return the (n, d) vectors of n texts. Raises EncoderError: the encoder can't be loaded, or has changed."""
        encoder = load_encoder(self.spec.name, EngineOptions("cpu"))  # the service has the GPU
        if encoder.spec.identity != self.spec.identity or not isinstance(encoder, TextEncoder):
            raise EncoderError(f"encoder {self.spec.name!r} is not the one that made the vectors")
        return encoder.encode_texts(texts)


def _encoder(manifest: Manifest, items: int) -> _DescribedEncoder:
    store = manifest.store
    chosen = (manifest.recall.get("plan") or {}).get("chosen", store.params.get("asked", store.kind))
    is_exact = resolve_kind(chosen, items) in (EXACT, TORCH_EXACT)
    return _DescribedEncoder(manifest) if is_exact else _TextEncoder(manifest)


def _summary(root: Path, manifest: Manifest, pending: _Pending | None, begun: float) -> CompactSummary:
    return CompactSummary(
        collection=str(root),
        version=manifest.version,
        unchanged=pending is None,
        encoder=manifest.encoder.name,
        store=manifest.store.kind,
        items=manifest.counts.indexed,
        added=pending.added if pending else 0,
        replaced=pending.replaced if pending else 0,
        changed=int(np.count_nonzero(pending.changed)) if pending else 0,
        deleted=pending.deleted if pending else 0,
        writes=manifest.writes,
        seconds=round(time.perf_counter() - begun, 3),
        recall={name: value for name, value in manifest.recall.items() if name != "sweep"},
    )
