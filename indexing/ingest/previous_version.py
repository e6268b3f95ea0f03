"""The collection's current version as reusable embeddings: unchanged images are copied from it, not encoded again."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
from typing_extensions import override

from indexing.ingest.reusable_embeddings import ReusableEmbeddings
from indexing.plan import Plan
from indexing.row_stream import ENCODED_SCHEMA, FINGERPRINTS
from lookalike.collection import Collection, open_collection
from lookalike.errors import CollectionError, CollectionNotFound
from lookalike.metadata import IDS_FILE
from lookalike.types import EncoderSpec, Int64, UInt64

_log = logging.getLogger(__name__)


class PreviousVersion(ReusableEmbeddings):
    """The rows of a collection's current version.

    Args:
        collection: an opened version that has fingerprints.
        fingerprints: (n,) uint64.
    """

    def __init__(self, collection: Collection, fingerprints: UInt64) -> None:
        self._collection = collection
        self._fingerprints = fingerprints
        self._id_hashes, self._rows = np.load(collection.folder / IDS_FILE, mmap_mode="r")

    @override
    def find(self, id_hashes: UInt64, fingerprints: UInt64) -> Int64:
        place = np.minimum(np.searchsorted(self._id_hashes, id_hashes), len(self._id_hashes) - 1)
        rows = self._rows[place].astype(np.int64)
        hit = (self._id_hashes[place] == id_hashes) & (self._fingerprints[rows] == fingerprints)
        return np.where(hit, rows, -1)

    @override
    def take(self, rows: Int64) -> pa.Table:
        records = self._collection.metadata.records([int(row) for row in rows])
        columns = {
            "id_hash": pa.nulls(len(rows), pa.uint64()),  # the caller has it
            "fingerprint": pa.array(self._fingerprints[rows], pa.uint64()),
            "vector": pa.array([vector.tobytes() for vector in self._collection.vectors[rows]], pa.binary()),
            "thumbnail": pa.array([self._collection.thumbnails.get(int(row)) for row in rows], pa.binary()),
            **{name: [record.get(name) for record in records] for name in ("width", "height", "format")},
            "code": pa.nulls(len(rows), pa.string()),
            "message": pa.nulls(len(rows), pa.string()),
        }
        return pa.table(columns, schema=ENCODED_SCHEMA)


def open_previous(root: Path) -> Collection | None:
    """Open the current version and verify its checksums; return None if there is none, or it is damaged."""
    try:
        return open_collection(root)
    except CollectionNotFound:
        return None
    except CollectionError as error:
        _log.warning("the current version can't be reused, all images are encoded again: %s", error)
        return None


def count_dropped(collection: Collection, plan: Plan) -> int:
    """Return how many of the version's rows are not in the plan."""
    before, _ = np.load(collection.folder / IDS_FILE, mmap_mode="r")
    planned = [control.column("_id_hash").to_numpy() for control, _ in plan.chunks()]
    return int((~np.isin(before, np.concatenate(planned))).sum()) if planned else len(before)


def reusable_version(collection: Collection, spec: EncoderSpec) -> PreviousVersion | None:
    """Return the version's embeddings; None if another encoder made them or the version has no fingerprints."""
    path = collection.folder / FINGERPRINTS
    if collection.manifest.encoder.identity != spec.identity or not path.is_file():
        return None
    return PreviousVersion(collection, np.load(path, mmap_mode="r"))
