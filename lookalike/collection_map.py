"""The map of a version: a place in the plane for each row, so that items that look alike lie close together.

`map.parquet` lies in the version's folder, beside the manifest, which does not list it: it is made later, and again.
Its columns `x` and `y` are float32 from 0 to 1, in the order of rows; both are null for a row that has no place. The
JSON under `lookalike_map` in its schema has the version, the method, its parameters, and when it was made.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.types import Float32

MAP_FILE = "map.parquet"
_KEY = b"lookalike_map"
_logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
"""What changes with a file: its inode, its time of change in nanoseconds, and its size."""


@dataclass(frozen=True, slots=True)
class CollectionMap:
    """The places of a version's rows.

    Attributes:
        version: the version's name.
        points: (n, 2) float32, x and y in [0, 1], in the order of rows; NaN for a row without a place.
        method: `umap`, `tsne`, or `pca` for a few items.
        params: the method's parameters.
        created: time in ISO 8601, UTC.
    """

    version: str
    points: Float32
    method: str
    params: Mapping[str, Any]
    created: str


def map_bytes(made: CollectionMap) -> bytes:
    """Return the content of a map's file."""
    known = {"version": made.version, "method": made.method, "params": dict(made.params), "created": made.created}
    columns = [pa.array(made.points[:, i], pa.float32(), from_pandas=True) for i in range(2)]
    table = pa.table(columns, ["x", "y"]).replace_schema_metadata({_KEY: json.dumps(known).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def map_stamp(folder: Path) -> Stamp | None:
    """Return what changes when a version's map is made again; None if it has none."""
    try:
        stat = (folder / MAP_FILE).stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def read_map(folder: Path, count: int) -> CollectionMap | None:
    """Read the map of the version in a folder.

    Args:
        folder: of the version.
        count: number of the version's rows.

    Returns:
        None where there is none. A damaged one, and one of another version, are logged and not used.
    """
    path = folder / MAP_FILE
    try:
        found = _parse(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        _ignore(path, f"it can't be read ({error!r:.200})")
        return None
    if (found.version, len(found.points)) != (folder.name, count):
        _ignore(path, f"it is of version {found.version!r:.100} and {len(found.points):,} items, not {count:,}")
        return None
    return found


def _parse(path: Path) -> CollectionMap:
    table = pq.ParquetFile(path, page_checksum_verification=True).read(["x", "y"])
    known = json.loads(table.schema.metadata[_KEY])
    points = np.stack([table.column(name).to_numpy().astype(np.float32) for name in ("x", "y")], axis=1)
    placed = ~np.isnan(points).any(axis=1)
    if not ((points[placed] >= 0) & (points[placed] <= 1)).all():
        raise ValueError("a place is not between 0 and 1")
    texts = {name: known[name] for name in ("version", "method", "created")}
    if not (all(isinstance(text, str) for text in texts.values()) and isinstance(known["params"], dict)):
        raise TypeError("its description has another form")
    return CollectionMap(points=points, params=known["params"], **texts)


def _ignore(path: Path, reason: str) -> None:
    _logger.warning("map_ignored path=%s: %s; make it again with `lookalike map`, or remove it", path, reason)
