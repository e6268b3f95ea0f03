"""Items of the previous version whose file, folder, tar or table can't be reached now: they stay as they are.

Such an item keeps its vector, thumbnail and metadata. A run that reaches the file again treats it like any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from indexing.id_set import IdSet
from indexing.ingest.left_out import LeftOutItems
from indexing.plan import PlanWriter
from indexing.row_stream import ENCODED_SCHEMA, FINGERPRINTS
from lookalike.collection import Collection
from lookalike.metadata import id_hash
from lookalike.sources.columns import RESERVED_COLUMNS
from lookalike.sources.item import Item

_ROWS_AT_ONCE = 2_048
_MEASURED_COLUMNS = {*RESERVED_COLUMNS} & {*ENCODED_SCHEMA.names}
"""Columns of the metadata that are measured on the image, and kept with its vector."""


class KeptItems:
    """Plans the previous version's items in place of unavailable ones.

    Args:
        previous: a version whose embeddings can be reused; None if there is none.
        left_out: items of the sources that are left out.

    Attributes:
        count: items that were kept.
    """

    def __init__(self, previous: Collection | None, left_out: LeftOutItems) -> None:
        self._previous, self._left_out = previous, left_out
        self._unavailable: list[Item] = []
        self.count = 0

    def pass_through(self, items: Iterable[Item], seen: IdSet, plan: PlanWriter) -> Iterator[Item]:
        """Yield the available items; then plan what is kept, and yield the unavailable items that are reported.

        An unavailable image file is reported unless its item is kept; a folder, tar or table always.

        Raises:
            SourceError: nothing in the sources can be reached: none of their tars and tables, or nothing that was
                indexed before.
        """
        reached = False
        for item in items:
            if item.unavailable:
                self._unavailable.append(item)
            else:
                reached = True
                yield item
        whole_files = all(item.stands_for is not None for item in self._unavailable)
        kept_paths = self._keep(seen, plan) if self._unavailable else set()
        if self._unavailable and not reached and (whole_files or not self.count):
            self._unavailable[0].load()  # raises why
        yield from (item for item in self._unavailable if item.stands_for is not None or _place(item) not in kept_paths)

    def _keep(self, seen: IdSet, plan: PlanWriter) -> set[tuple[str, str]]:
        """Plan the kept items; return their sources and paths."""
        kept_paths: set[tuple[str, str]] = set()
        if self._previous is None:
            return kept_paths
        fingerprints = np.load(self._previous.folder / FINGERPRINTS, mmap_mode="r")
        found = self._rows(self._previous)
        while rows := list(islice(found, _ROWS_AT_ONCE)):
            records = _records(self._previous, rows)
            types = _types(self._previous, {name for record in records for name in record})
            for row, record in zip(rows, records, strict=True):
                hash_ = id_hash(record["id"])
                if not seen.add(hash_):
                    continue
                kept_paths.add((record["source"], record.get("path", "")))
                if self._left_out.takes(hash_):
                    plan.leave_out(hash_, int(fingerprints[row]), record, types)
                else:
                    plan.add(hash_, int(fingerprints[row]), record, types=types)
                    self.count += 1
        return kept_paths

    def _rows(self, previous: Collection) -> Iterator[int]:
        """Yield the rows at or below the unavailable paths, and those of the unavailable tars and tables."""
        paths: dict[str, set[str]] = defaultdict(set)
        starts: dict[str, set[str]] = defaultdict(set)
        for item in self._unavailable:
            if item.stands_for is None:
                paths[item.source].add(_place(item)[1])
            else:
                starts[item.source].add(item.stands_for)
        names = [name for name in ("id", "source", "path") if name in previous.metadata.columns]
        columns = (_values(previous.metadata.column(name)) for name in names)
        for row, values in enumerate(zip(*columns, strict=True)):
            place = dict(zip(names, values, strict=True))
            source, path = place.get("source"), place.get("path")
            below = source in paths and path and _is_at_or_below(path, paths[source])
            if below or (source in starts and place["id"].startswith(tuple(starts[source]))):
                yield row


def _values(column: pa.ChunkedArray) -> Iterator[Any]:
    """Yield a column's values; memory holds those of one chunk."""
    for chunk in column.chunks:
        yield from chunk.to_pylist()


def _place(item: Item) -> tuple[str, str]:
    """Return the source and path of an image file or a folder."""
    return item.source, str(item.columns.get("path", ""))


def _is_at_or_below(path: str, places: set[str]) -> bool:
    """Return whether a path is one of the places, or below one of them that ends in a slash.

    >>> [_is_at_or_below("a/b/c.jpg", places) for places in ({"a/b/c.jpg"}, {"a/"}, {"a/b"}, {"b/"})]
    [True, True, False, False]
    """
    ends = [i + 1 for i, character in enumerate(path) if character == "/"]
    return path in places or any(path[:end] in places for end in ends)


def _records(previous: Collection, rows: list[int]) -> list[dict[str, Any]]:
    """Return the metadata of rows as their sources gave it."""
    names = [name for name in previous.metadata.columns if name not in _MEASURED_COLUMNS]
    columns = [previous.metadata.column(name).take(pa.array(rows)).to_pylist() for name in names]
    return [
        {name: value for name, value in zip(names, values, strict=True) if value is not None}
        for values in zip(*columns, strict=True)
    ]


def _types(previous: Collection, names: set[str]) -> dict[str, pa.DataType]:
    own = sorted(names - {*RESERVED_COLUMNS})
    return {name: previous.metadata.column(name).type for name in own}
