"""Versions of the collection as reusable embeddings: images that they hold are copied from them, not encoded again.

The current version is searched by id and fingerprint, and by content. Versions before it are searched by content only.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
from typing_extensions import override

from indexing.ingest.reusable_embeddings import KnownContent, ReusableEmbeddings, content_keys
from indexing.plan import Plan
from indexing.row_stream import CONTENT_HASHES, ENCODED_SCHEMA, FINGERPRINTS
from lookalike.collection import VERSIONS, Collection, current_version, open_collection, open_version
from lookalike.errors import CollectionError, CollectionNotFound
from lookalike.manifest import read_manifest
from lookalike.metadata import IDS_FILE
from lookalike.paths import is_unavailable
from lookalike.prepared_image import CONTENT_HASH_BYTES
from lookalike.sources.columns import RESERVED_COLUMNS
from lookalike.types import EncoderSpec, Int64, UInt8, UInt64

_MEASURED_COLUMNS = [name for name in ENCODED_SCHEMA.names if name in RESERVED_COLUMNS]
_log = logging.getLogger(__name__)


class PreviousVersion(ReusableEmbeddings):
    """The rows of a version.

    Args:
        collection: an opened version.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._fingerprints = _fingerprints(collection)
        self._content_hashes = _content_hashes(collection.folder)
        self._id_hashes, self._rows = np.load(collection.folder / IDS_FILE, mmap_mode="r")

    @override
    def find(self, id_hashes: UInt64, fingerprints: UInt64) -> Int64:
        place = np.minimum(np.searchsorted(self._id_hashes, id_hashes), len(self._id_hashes) - 1)
        rows = self._rows[place].astype(np.int64)
        hit = (self._id_hashes[place] == id_hashes) & (self._fingerprints[rows] == fingerprints)
        return np.where(hit, rows, -1)

    @override
    def content_hashes(self) -> UInt8:
        return self._content_hashes

    @override
    def take(self, rows: Int64) -> pa.Table:
        measured = [name for name in _MEASURED_COLUMNS if name in self._collection.metadata.columns]
        records = self._collection.metadata.records([int(row) for row in rows], measured)
        known = len(self._content_hashes) > 0
        hashes = [value.tobytes() for value in self._content_hashes[rows]] if known else [None] * len(rows)
        columns = {
            "id_hash": pa.nulls(len(rows), pa.uint64()),  # the caller has it
            "fingerprint": pa.array(self._fingerprints[rows], pa.uint64()),
            "vector": pa.array([vector.tobytes() for vector in self._collection.vectors[rows]], pa.binary()),
            "thumbnail": pa.array([self._collection.thumbnails.get(int(row)) for row in rows], pa.binary()),
            **{name: [record.get(name) for record in records] for name in _MEASURED_COLUMNS},
            "code": pa.nulls(len(rows), pa.string()),
            "message": pa.nulls(len(rows), pa.string()),
            "content_hash": pa.array(hashes, ENCODED_SCHEMA.field("content_hash").type),
        }
        return pa.table(columns, schema=ENCODED_SCHEMA)


class OlderVersion(KnownContent):
    """The rows of a version that is not current; its files are verified when the first image is found in it.

    Args:
        root: the collection's folder.
        version: the version's name.
    """

    def __init__(self, root: Path, version: str) -> None:
        self._root, self._version = root, version
        self._lock = threading.Lock()
        self._opened: PreviousVersion | CollectionError | None = None

    @override
    def content_hashes(self) -> UInt8:
        return _content_hashes(self._root / VERSIONS / self._version)

    @override
    def take(self, rows: Int64) -> pa.Table:
        with self._lock:
            self._opened = self._opened or self._open()
        if isinstance(self._opened, CollectionError):
            raise self._opened
        return self._opened.take(rows)

    def _open(self) -> PreviousVersion | CollectionError:
        try:
            return PreviousVersion(open_version(self._root, self._version))
        except CollectionError as error:
            _log.warning("an older version can't be reused: %s", error)
            return error


def open_previous(root: Path) -> Collection | None:
    """Open the current version and verify its checksums; return None if there is none, or it is damaged.

    Raises:
        CollectionError: it can't be read now, for want of permission or since its drive fails. It may be intact.
    """
    try:
        return open_collection(root)
    except CollectionError as error:
        cause = error.__cause__
        if isinstance(error, CollectionNotFound) and isinstance(cause, FileNotFoundError | NotADirectoryError):
            return None
        if isinstance(error, CollectionNotFound) or is_unavailable(cause):
            raise
        _log.warning("the current version can't be reused, all images are encoded again: %s", error)
        return None


def count_dropped(collection: Collection, plan: Plan, arrived: UInt8, written: UInt64) -> int:
    """Return how many of the version's rows are not in the plan, nor have the content of a new image.

    Items that a write made, replaced or deleted don't count.

    Args:
        collection: the version.
        plan: the items of this run.
        arrived: (m, 16) content hashes of the images that were new in this run.
        written: hashes of the ids that a write put or deleted.
    """
    before, rows = np.load(collection.folder / IDS_FILE, mmap_mode="r")
    planned = [written, *(control.column("_id_hash").to_numpy() for control, _ in plan.chunks())]
    missing = rows[~np.isin(before, np.concatenate(planned))]
    hashes = _content_hashes(collection.folder)
    if not len(hashes):
        return len(missing)
    arrived_keys = content_keys(arrived)
    return int((~np.isin(content_keys(hashes[missing]), arrived_keys[arrived_keys != 0])).sum())


def reusable_version(collection: Collection, spec: EncoderSpec) -> PreviousVersion | None:
    """Return the version's embeddings; None if another encoder made them or the version has no fingerprints."""
    if collection.manifest.encoder.identity != spec.identity or not (collection.folder / FINGERPRINTS).is_file():
        return None
    return PreviousVersion(collection)


def older_versions(root: Path, spec: EncoderSpec) -> list[OlderVersion]:
    """Return the versions that are not current, that the encoder made and that have content hashes, newest first."""
    try:
        current = current_version(root)
    except CollectionError:
        return []
    names = {folder.name for folder in (root / VERSIONS).glob("[!.]*")} - {current}
    return [OlderVersion(root, name) for name in sorted(names, reverse=True) if _has_content(root, name, spec)]


def _has_content(root: Path, version: str, spec: EncoderSpec) -> bool:
    folder = root / VERSIONS / version
    try:
        return (folder / CONTENT_HASHES).is_file() and read_manifest(folder).encoder.identity == spec.identity
    except CollectionError:
        return False


def _fingerprints(collection: Collection) -> UInt64:
    """Return the version's (n,) fingerprints, memory-mapped; zeros if an earlier release wrote it."""
    path = collection.folder / FINGERPRINTS
    found: UInt64 = np.load(path, mmap_mode="r") if path.is_file() else np.zeros(len(collection), np.uint64)
    return found


def _content_hashes(folder: Path) -> UInt8:
    """Return the version's (n, 16) content hashes, memory-mapped; none if it has no such file, or a damaged one."""
    try:
        hashes: UInt8 = np.load(folder / CONTENT_HASHES, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        hashes = np.empty(0, np.uint8)
    valid = hashes.dtype == np.uint8 and hashes.shape[1:] == (CONTENT_HASH_BYTES,)
    return hashes if valid else np.empty((0, CONTENT_HASH_BYTES), np.uint8)
