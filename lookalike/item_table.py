"""The items of a collection as a table: counted, described by column, filtered and sorted.

Dimension letters: n rows of the collection, m rows that pass a filter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.columns import UnknownField, field_names, field_values
from lookalike.errors import InvalidLimit, QueryError
from lookalike.facets import (
    DEFAULT_BINS,
    DEFAULT_VALUES,
    MAX_BINS,
    MAX_VALUES,
    ORDERED_TYPES,
    Facet,
    facet,
    plain_type,
)
from lookalike.filters import Filter, filter_mask
from lookalike.messages import listed, quoted, unknown_name
from lookalike.metadata import ItemRecords
from lookalike.types import Bool, Int64

FilteredRows = Callable[[Filter], Int64]
"""Filter -> the rows that pass it, (m,) ascending."""

_SORTED_TYPES = ORDERED_TYPES | {"text", "boolean", "uuid", "null"}
_MAX_CACHED_ORDER_BYTES = 64 << 20
_MAX_CACHED_ORDERS = 16


class ItemTable:
    """The items of an opened collection; safe to use from several threads."""

    def __init__(
        self,
        metadata: ItemRecords,
        filtered_rows: FilteredRows | None = None,
        live: Callable[[], Bool] | None = None,
        positions: Callable[[], Int64 | None] = lambda: None,
    ) -> None:
        """Describe items.

        Args:
            metadata: of all rows.
            filtered_rows: evaluates filters, perhaps from a cache; by default, each is evaluated anew.
            live: returns (n,) the rows that are items; None for all.
            positions: returns (n,) where each row stands among the items; None if in the order of rows.
        """
        self._metadata = metadata
        self._filtered_rows = filtered_rows or partial(_filtered_rows, metadata)
        self._live = live
        self._positions = positions
        # Successive pages have the same order. Not a bound method: the reference cycle would keep a replaced version
        # in memory until the garbage collector runs.
        size = min(_MAX_CACHED_ORDERS, max(1, _MAX_CACHED_ORDER_BYTES // max(1, 8 * len(metadata))))
        self._order = lru_cache(size)(partial(_order, metadata, positions))

    def __len__(self) -> int:
        return len(self._metadata) if self._live is None else int(np.count_nonzero(self._live()))

    def columns(self, fields: Sequence[str] | None) -> list[str] | None:
        """Return the columns to read for records that have an id and `fields`; None for all columns.

        Raises:
            QueryError: a field is no column of the metadata.
        """
        if fields is None:
            return None
        known = self._metadata.columns
        for name in fields:
            if name not in known:
                raise QueryError(f"fields: {unknown_name('metadata column', name, known)}")
        return list(dict.fromkeys(("id", *fields)))

    def rows(self, condition: Filter | None = None, sort: str | None = None) -> Sequence[int] | Int64:
        """Return the rows that pass a filter, in their own order or sorted by a column.

        Args:
            condition: which rows; None for all.
            sort: a column, or a field of a column of records, with `-` before it for descending. Items of equal
                values keep the order of their rows; those without a value are last.

        Raises:
            FilterInvalid: the filter does not fit the metadata.
            QueryError: there is no such column, or its values have no order.
        """
        mask = self._mask(condition)
        if sort is None:
            return range(len(self)) if mask is None else self._in_order(np.flatnonzero(mask))
        order = self._order(sort)
        return order if mask is None else order[mask[order]]

    def count(self, condition: Filter | None = None) -> int:
        """Return the number of items that pass a filter. Raises FilterInvalid."""
        return len(self.rows(condition))

    @cached_property
    def fields(self) -> list[Facet]:
        """All columns and fields of columns of records, over all items."""
        return self.facets()

    def facets(
        self,
        condition: Filter | None = None,
        names: Sequence[str] | None = None,
        limit: int = DEFAULT_VALUES,
        bins: int = DEFAULT_BINS,
    ) -> list[Facet]:
        """Return what the values of columns are, over the items that pass a filter.

        Args:
            condition: which items; None for all.
            names: of columns and of fields of columns of records; None for all.
            limit: maximum number of values listed for a column, 1 to 1,000.
            bins: maximum number of bins of a histogram, 2 to 100.

        Raises:
            FilterInvalid: the filter does not fit the metadata.
            InvalidLimit, QueryError: `limit` or `bins` is out of range, or there is no column of a name.
        """
        if not 1 <= limit <= MAX_VALUES:
            raise InvalidLimit(f"limit is {limit}; it must be between 1 and {MAX_VALUES:,}")
        if not 2 <= bins <= MAX_BINS:
            raise QueryError(f"bins is {bins}; it must be between 2 and {MAX_BINS}")
        mask = self._mask(condition)
        chosen = field_names(self._metadata) if names is None else dict.fromkeys(names)
        try:
            return [facet(name, self._metadata, mask, limit, bins) for name in chosen]
        except UnknownField as error:
            raise QueryError(f"fields: {error}") from error

    def _in_order(self, rows: Int64) -> Int64:
        positions = self._positions()
        return rows if positions is None else rows[np.argsort(positions[rows])]

    def _mask(self, condition: Filter | None) -> Bool | None:
        """Return the (n,) rows that are items and pass a filter; None for all rows."""
        if condition is None:
            return None if self._live is None else self._live()
        mask = np.zeros(len(self._metadata), np.bool_)
        mask[self._filtered_rows(condition)] = True
        return mask


def _filtered_rows(metadata: ItemRecords, condition: Filter) -> Int64:
    return np.flatnonzero(filter_mask(condition, metadata))


def _order(metadata: ItemRecords, positions: Callable[[], Int64 | None], sort: str) -> Int64:
    """Return all rows (n,) in the order of a column's values."""
    name = sort.removeprefix("-")
    try:
        values = field_values(name, metadata)
    except UnknownField as error:
        raise QueryError(f"sort: {error}") from error
    if plain_type(values.type) not in _SORTED_TYPES:
        names = [each for each in field_names(metadata) if plain_type(_type(each, metadata)) in _SORTED_TYPES]
        kind = plain_type(values.type)
        raise QueryError(f"sort: {quoted(name)} holds {kind}, which has no order; sort by one of {listed(names)}")
    places = positions()
    first = None if places is None else np.argsort(places)
    sortable = _sortable(values) if first is None else _sortable(values).take(pa.array(first))
    direction = "descending" if sort.startswith("-") else "ascending"
    order: Int64 = pc.sort_indices(sortable, sort_keys=[("", direction)]).to_numpy().astype(np.int64)
    order = order if first is None else first[order]
    order.flags.writeable = False  # it is cached
    return order


def _type(name: str, metadata: ItemRecords) -> pa.DataType:
    return field_values(name, metadata).type


def _sortable(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values in a type that Arrow sorts; NaN becomes a missing value."""
    kind = values.type
    if pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if isinstance(kind, pa.UuidType):
        return values.cast(kind.storage_type)
    if pa.types.is_float16(kind):
        values = values.cast(pa.float32())
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(values), None, values)
    return values
