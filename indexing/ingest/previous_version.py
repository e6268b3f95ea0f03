"""The version before as an origin: what stands in it unchanged is copied, not encoded again."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa

from indexing.ingest.shards import SCHEMA
from indexing.plan import Plan
from lookalike.collection import Collection, open_collection
from lookalike.errors import CollectionError, CollectionNotFound
from lookalike.metadata import IDS_FILE
from lookalike.types import EncoderSpec, Int64, UInt64

_log = logging.getLogger(__name__)

FINGERPRINTS = "fingerprints.npy"
"""(n,) uint64 beside `vectors.npy`: the fingerprint of each row's image."""


class PreviousVersion:
    """The rows of a collection's current version.

    Args:
        collection: an opened version that has fingerprints.
        fingerprints: (n,) uint64.
    """

    def __init__(self, collection: Collection, fingerprints: UInt64) -> None:
        self._collection = collection
        self._fingerprints = fingerprints
        self._id_hashes, self._rows = np.load(collection.folder / IDS_FILE, mmap_mode="r")

    def find(self, id_hashes: UInt64, fingerprints: UInt64) -> Int64:
        """See `Origin.find`."""
        place = np.minimum(np.searchsorted(self._id_hashes, id_hashes), len(self._id_hashes) - 1)
        rows = self._rows[place].astype(np.int64)
        hit = (self._id_hashes[place] == id_hashes) & (self._fingerprints[rows] == fingerprints)
        return np.where(hit, rows, -1)

    def take(self, rows: Int64) -> pa.Table:
        """See `Origin.take`."""
        records = self._collection.metadata.records([int(row) for row in rows])
        columns = {
            "id_hash": pa.nulls(len(rows), pa.uint64()),  # known to whoever asked
            "fingerprint": pa.array(self._fingerprints[rows], pa.uint64()),
            "vector": pa.array([vector.tobytes() for vector in self._collection.vectors[rows]], pa.binary()),
            "thumbnail": pa.array([self._collection.thumbnails.get(int(row)) for row in rows], pa.binary()),
            **{name: [record.get(name) for record in records] for name in ("width", "height", "format")},
            "code": pa.nulls(len(rows), pa.string()),
            "message": pa.nulls(len(rows), pa.string()),
        }
        return pa.table(columns, schema=SCHEMA)


def open_previous(root: Path) -> Collection | None:
    """The current version with its checksums verified, None where there is none that could be trusted."""
    try:
        return open_collection(root)
    except CollectionNotFound:
        return None
    except CollectionError as error:
        _log.warning("the current version can't be reused, everything is encoded afresh: %s", error)
        return None


def gone(collection: Collection, plan: Plan) -> int:
    """How many of the version's rows the plan's items no longer name."""
    before, _ = np.load(collection.folder / IDS_FILE, mmap_mode="r")
    named = [control.column("_id_hash").to_numpy() for control, _ in plan.chunks()]
    return int((~np.isin(before, np.concatenate(named))).sum()) if named else len(before)


def as_origin(collection: Collection, spec: EncoderSpec) -> PreviousVersion | None:
    """The version as an origin, None where another encoder made it or it holds no fingerprints."""
    path = collection.folder / FINGERPRINTS
    if collection.manifest.encoder.identity != spec.identity or not path.is_file():
        return None
    return PreviousVersion(collection, np.load(path, mmap_mode="r"))
