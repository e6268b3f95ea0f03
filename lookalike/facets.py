"""What the values of a column are: their type, number, most frequent ones, range and histogram.

Counts are numbers of items, so that the count of a value or a bin is what a filter for it finds: an item whose list
holds a value twice counts once, and texts are compared in Unicode's NFC.

Dimension letters: n rows, m values or elements of lists, v distinct values, b bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.columns import Columns, field_values, flatten, is_list, type_name
from lookalike.comparisons import MAYBE_NOT_NFC, comparable, numpy_mask
from lookalike.histograms import HISTOGRAM_TYPES, bin_edges
from lookalike.json_values import Converter, converter, json_ready
from lookalike.types import Bool, Int64

DEFAULT_VALUES, DEFAULT_BINS = 100, 20
MAX_VALUES, MAX_BINS = 1_000, 100

_TYPES = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_integer, "integer"),
    (pa.types.is_floating, "number"),
    (pa.types.is_decimal, "number"),
    (pa.types.is_date, "date"),
    (pa.types.is_timestamp, "datetime"),
    (pa.types.is_time, "time"),
    (pa.types.is_duration, "duration"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_string_view, "text"),
    (pa.types.is_struct, "record"),
    (pa.types.is_map, "map"),
    (pa.types.is_null, "null"),
    (pa.types.is_binary, "binary"),
    (pa.types.is_large_binary, "binary"),
    (pa.types.is_binary_view, "binary"),
    (pa.types.is_fixed_size_binary, "binary"),
)
ORDERED_TYPES = frozenset({"integer", "number", "date", "datetime", "time", "duration"})
"""Types that have a range."""
_LISTED_TYPES = frozenset({"text", "boolean", "uuid"})
"""Types of which the distinct values are listed; in lists, those of integers are, too."""


@dataclass(frozen=True, slots=True)
class ValueCount:
    """A value of a column, and the number of items that have it."""

    value: Any
    count: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Numbers of items by ranges of their values.

    Attributes:
        edges: (b + 1,) ascending; a bin is from its edge, included, to the next one, excluded.
        counts: (b,) number of items in each bin.
    """

    edges: list[Any]
    counts: list[int]


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of one column, JSON-ready as in records.

    Attributes:
        name: of the column; `a.b` is the field `b` of a column of records.
        type: a plain word, such as `text`, `integer`, `datetime` or `list of text`.
        count: number of items that have a value.
        distinct: number of distinct values; None for types whose values are not listed.
        values: the most frequent values, ties in their own order; None likewise.
        minimum: the smallest finite value; None without one, and for types without an order.
        maximum: the largest finite value; None likewise.
        histogram: of the finite numbers or dates; None likewise.
    """

    name: str
    type: str
    count: int
    distinct: int | None = None
    values: list[ValueCount] | None = None
    minimum: Any = None
    maximum: Any = None
    histogram: Histogram | None = None


def plain_type(kind: pa.DataType) -> str:
    """Return a plain word for a type.

    >>> plain_type(pa.list_(pa.string())), plain_type(pa.float32())
    ('list of text', 'number')
    """
    if is_list(kind):
        return f"list of {plain_type(kind.value_type)}"
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.UuidType):
        return "uuid"
    return next((name for test, name in _TYPES if test(kind)), type_name(kind))


def facet(
    name: str, columns: Columns, mask: Bool | None = None, limit: int = DEFAULT_VALUES, bins: int = DEFAULT_BINS
) -> Facet:
    """Return what the values of a column are.

    Args:
        name: a column, or a field of a column of records.
        columns: the table.
        mask: (n,) the items that count; None for all.
        limit: maximum number of `values`.
        bins: maximum number of bins of the histogram, at least 2.

    Raises:
        UnknownField: there is no such column.
    """
    whole = field_values(name, columns)
    valid = numpy_mask(whole.is_valid())
    kind, count = plain_type(whole.type), int(np.count_nonzero(valid if mask is None else valid & mask))
    element_kind = kind.rpartition("list of ")[2]
    if element_kind not in ORDERED_TYPES | _LISTED_TYPES:
        return Facet(name, kind, count)
    elements, rows = _present(*flatten(whole), mask)
    convert = _converter(whole)
    distinct = values = None
    if element_kind in _LISTED_TYPES or (rows is not None and element_kind == "integer"):
        distinct, values = _value_counts(elements, rows, limit, convert)
    if element_kind not in ORDERED_TYPES:
        return Facet(name, kind, count, distinct, values)
    low, high = _bounds(elements)
    histogram = None
    if low is not None and element_kind in HISTOGRAM_TYPES:
        histogram = _histogram(elements, rows, bin_edges(low, high, bins), convert)
    return Facet(name, kind, count, distinct, values, convert(low), convert(high), histogram)


def _present(values: pa.ChunkedArray, rows: Int64 | None, mask: Bool | None) -> tuple[pa.ChunkedArray, Int64 | None]:
    """Return the values of masked rows that are neither null nor NaN nor infinite, in a type that Arrow counts."""
    kind = values.type
    if pa.types.is_float16(kind):
        values = values.cast(pa.float32())
    elif pa.types.is_string_view(kind):
        values = values.cast(pa.string())
    elif isinstance(kind, pa.UuidType):
        values = values.cast(kind.storage_type)
    if mask is None and not values.null_count and not pa.types.is_floating(kind):
        return values, rows
    present = numpy_mask(pc.is_finite(values) if pa.types.is_floating(kind) else values.is_valid())
    if mask is not None:
        present &= mask if rows is None else mask[rows]
    return values.filter(pa.array(present)), None if rows is None else rows[present]


def _converter(whole: pa.ChunkedArray) -> Converter:
    """Return the conversion of an element, as in a record with the column."""
    kind, convert = whole.type, converter(whole)
    while is_list(kind):
        kind, convert = kind.value_type, _of_element(convert)
    if isinstance(kind, pa.UuidType):
        return lambda value: None if value is None else str(UUID(bytes=value))
    return convert


def _of_element(convert: Converter) -> Converter:
    return lambda value: convert([value])[0]


def _value_counts(
    values: pa.ChunkedArray, rows: Int64 | None, limit: int, convert: Converter
) -> tuple[int, list[ValueCount]]:
    """Return the number of distinct values, and the most frequent ones with the number of items that have them."""
    encoded = values.dictionary_encode()
    if not encoded.num_chunks:
        return 0, []
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    distinct = encoded.chunk(0).dictionary
    if pa.types.is_string(distinct.type) or pa.types.is_large_string(distinct.type):
        composed = _composed(distinct)
        if composed is not distinct:  # texts that were two may now be one
            merged = composed.dictionary_encode()
            codes, distinct = merged.indices.to_numpy()[codes], merged.dictionary
    table = pa.table({"count": _item_counts(codes, rows, len(distinct)), "value": distinct})
    order = [("count", "descending"), ("value", "ascending")]
    top = table.take(pc.select_k_unstable(table, min(limit, len(table)), order)).to_pydict()
    return len(distinct), [
        ValueCount(convert(value), count) for value, count in zip(top["value"], top["count"], strict=True)
    ]


def _composed(texts: pa.Array) -> pa.Array:
    """Return texts in NFC, the same object if they are; only those that may not be are converted, as it takes long."""
    if pc.all(pc.string_is_ascii(texts)).as_py():
        return texts
    unsure = pc.match_substring_regex(texts, MAYBE_NOT_NFC)
    if not pc.any(unsure).as_py():
        return texts
    return pc.replace_with_mask(texts, unsure, pc.utf8_normalize(texts.filter(unsure), "NFC"))


def _item_counts(codes: Int64, rows: Int64 | None, size: int) -> Int64:
    """Return for each code in [0, size) how many rows have it; `rows` are None where each code is of its own row."""
    if rows is not None:
        pairs = rows * size + codes
        pairs.sort()
        codes = pairs[np.concatenate(([True], pairs[1:] != pairs[:-1]))] % size if len(pairs) else pairs
    return np.bincount(codes, minlength=size)


def _bounds(values: pa.ChunkedArray) -> tuple[Any, Any]:
    """Return the smallest and the largest value; None for both without one, or where Python has no such date."""
    kind = values.type
    bounds = pc.min_max(values.cast(pa.int64()) if pa.types.is_duration(kind) else values)
    try:
        low, high = (bounds[name].cast(kind).as_py() for name in ("min", "max"))
    except (OverflowError, ValueError):
        return None, None
    return low, high


def _histogram(values: pa.ChunkedArray, rows: Int64 | None, edges: list[Any], convert: Converter) -> Histogram:
    """Count the values between edges; all of them lie between the first and the last one."""
    column = comparable(values)
    codes = np.zeros(len(values), np.int64)
    for edge in edges[1:-1]:
        codes += column.within("gte", json_ready(edge))
    shown = [convert(edge) if isinstance(edge, int) else json_ready(edge) for edge in edges]
    return Histogram(shown, _item_counts(codes, rows, len(edges) - 1).tolist())
