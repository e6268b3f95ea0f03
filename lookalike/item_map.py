"""The items of a collection on its map, as writes leave them, and the values of a column to colour them by.

Dimension letters: n rows of the version, m items on the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.collection import Collection
from lookalike.collection_map import CollectionMap, read_map
from lookalike.columns import UnknownField, field_values, is_list
from lookalike.errors import MAX_VALUE_CHARACTERS, QueryError
from lookalike.facets import plain_type
from lookalike.json_values import converter
from lookalike.messages import quoted
from lookalike.metadata import ItemRecords
from lookalike.types import Float32, Int64
from lookalike.writes.live_collection import LiveCollection

_WITHOUT_VALUES = frozenset({"record", "map", "binary"})


@dataclass(frozen=True, slots=True)
class ItemMap:
    """The items that have a place.

    Attributes:
        made: the version's map.
        rows: (m,) of the collection, in the order of the items.
        points: (m, 2) x and y, in [0, 1].
        unmapped: number of items without a place, such as those that were added later.
    """

    made: CollectionMap
    rows: Int64
    points: Float32
    unmapped: int


def item_map(collection: Collection) -> ItemMap | None:
    """Return the places of a collection's items; None if its version has no map that can be read.

    A replaced item keeps its place, a deleted one is left out, and a new one has none.
    """
    version = collection.version if isinstance(collection, LiveCollection) else collection
    made = read_map(version.folder, len(version))
    if made is None:
        return None
    rows, places = np.arange(len(version)), np.arange(len(version))
    if isinstance(collection, LiveCollection):
        rows, places = _living(collection)
    placed = ~np.isnan(made.points[places, 0])
    rows, places = rows[placed], places[placed]
    return ItemMap(made, rows, made.points[places], len(collection) - len(rows))


def _living(collection: LiveCollection) -> tuple[Int64, Int64]:
    """Return the rows of items that the version knows by their id, and the row in the version of each, ascending."""
    split, metadata = len(collection.version), collection.version.metadata
    first = np.arange(split) if collection.version_live is None else np.flatnonzero(collection.version_live)
    slots, known = list[int](), list[int]()
    for slot in np.flatnonzero(collection.slots_live).tolist():
        row = metadata.find(collection.delta.slots[slot].id)
        if row is not None:
            slots.append(split + slot)
            known.append(row)
    rows, places = (
        np.concatenate([first, np.array(slots, np.int64)]),
        np.concatenate([first, np.array(known, np.int64)]),
    )
    order = np.argsort(places)
    return rows[order], places[order]


def item_ids(metadata: ItemRecords, rows: Int64) -> list[str]:
    """Return the ids of (m,) rows."""
    ids: list[str] = metadata.column("id").take(pa.array(rows)).to_pylist()
    return ids


def column_values(name: str, metadata: ItemRecords, rows: Int64) -> tuple[str, list[Any]]:
    """Return the type of a column in a plain word, and a JSON-ready value for each of (m,) rows, None without one.

    Of a list, it is the first element, and of a text, the first `MAX_VALUE_CHARACTERS` characters.

    Raises:
        QueryError: there is no such column, or its values are records, maps or bytes.
    """
    try:
        whole = field_values(name, metadata)
    except UnknownField as error:
        raise QueryError(f"field: {error}") from error
    kind = plain_type(whole.type)
    if kind.rpartition("list of ")[2] in _WITHOUT_VALUES:
        raise QueryError(f"field: {quoted(name)} holds {kind}; name a column of texts, numbers or dates, or of lists")
    values, positions = _first_elements(_gathered(whole, rows))
    found: list[Any] = [None] * len(rows)
    convert = converter(values)
    for position, value in zip(positions.tolist(), values.to_pylist(), strict=True):
        found[position] = convert(value)
    return kind, found


def _gathered(values: pa.ChunkedArray, rows: Int64) -> pa.ChunkedArray:
    """Return the values of (m,) rows."""
    return _plain(values).take(pa.array(rows))


def _first_elements(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Int64]:
    """Return values without lists, of each list its first element, and the position of each."""
    positions = np.arange(len(values))
    while is_list(values.type):
        values = pc.list_slice(values, 0, 1, return_fixed_size_list=False)
        positions = positions[pc.list_parent_indices(values).to_numpy()]
        values = pc.list_flatten(values)
    return _plain(values), positions


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _plain(values.cast(kind.value_type))
    if pa.types.is_decimal(kind):  # a number for JSON, too
        return values.cast(pa.float64())
    if pa.types.is_string_view(kind):
        values = values.cast(pa.string())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return pc.utf8_slice_codeunits(values, 0, MAX_VALUE_CHARACTERS)
    return values
