"""Conversion of metadata columns to JSON, which has fewer types than Arrow."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_EXACT_INTEGER = 2**53
"""JavaScript, among others, reads JSON numbers as 64-bit floats: larger integers lose digits."""

_JSON_TYPES = frozenset({str, int, bool, type(None)})
"""Types that JSON has; most values are of these."""

Converter = Callable[[Any], Any]


def json_ready(value: Any) -> Any:
    """Convert a value for JSON: dates to ISO 8601, NaN and infinity to None, bytes to their length."""
    if type(value) in _JSON_TYPES:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    return value


def converter(values: pa.ChunkedArray) -> Converter:
    """Return the conversion of a column's values: integers become text if any exceeds MAX_EXACT_INTEGER.

    Floats of 16 and 32 bits become the shortest number that is the same in the column's type: 0.1, not
    0.10000000149011612. In lists, which may be long, they stay as they are. Fields of records are converted each on its
    own.
    """
    return _converter(values) or json_ready


_SHORT_FLOATS: dict[pa.DataType, Callable[[float], object]] = {pa.float16(): np.float16, pa.float32(): np.float32}
_LONG_INTEGERS = (pa.int64(), pa.uint64())


def _needs_conversion(kind: pa.DataType) -> bool:
    """Return whether a type has short floats, or long integers, so that the values must be looked at."""
    if pa.types.is_dictionary(kind):
        return _needs_conversion(kind.value_type)
    fields = (kind.field(i).type for i in range(kind.num_fields))
    return kind in _SHORT_FLOATS or kind in _LONG_INTEGERS or any(map(_needs_conversion, fields))


def _converter(values: pa.ChunkedArray) -> Converter | None:
    """Return the conversion; None for `json_ready`, which suffices for most types."""
    kind = values.type
    if not _needs_conversion(kind):
        return None
    if kind in _SHORT_FLOATS:
        return _shortest(_SHORT_FLOATS[kind])
    if kind in _LONG_INTEGERS:
        return _text if _has_large(values) else None
    if pa.types.is_struct(kind):
        fields = {field.name: _converter(pc.struct_field(values, [i])) for i, field in enumerate(kind)}
        return _of_fields({n: convert or json_ready for n, convert in fields.items()}) if any(fields.values()) else None
    if pa.types.is_dictionary(kind):
        return _converter(pa.chunked_array([chunk.dictionary for chunk in values.chunks], kind.value_type))
    if pa.types.is_map(kind):
        return _of_pairs(values)
    if pa.types.is_nested(kind) and kind.num_fields == 1:
        if kind.field(0).type in _SHORT_FLOATS:
            return None
        convert = _converter(pc.list_flatten(values))
        return _of_elements(convert) if convert else None
    return None


def _shortest(kind: Callable[[float], object]) -> Converter:
    def convert(value: float | None) -> float | None:
        return float(str(kind(value))) if value is not None and math.isfinite(value) else None

    return convert


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _has_large(values: pa.ChunkedArray) -> bool:
    bounds = pc.min_max(values)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return low is not None and bool(low < -MAX_EXACT_INTEGER or high > MAX_EXACT_INTEGER)


def _of_fields(fields: dict[str, Converter]) -> Converter:
    return lambda value: None if value is None else {name: fields[name](cell) for name, cell in value.items()}


def _of_elements(convert: Converter) -> Converter:
    return lambda value: None if value is None else [convert(cell) for cell in value]


def _of_pairs(values: pa.ChunkedArray) -> Converter | None:
    """Return the conversion of a column of maps, whose values are lists of pairs."""
    keys, items = (
        _converter(pa.chunked_array([getattr(chunk, part) for chunk in values.chunks], kind))
        for part, kind in (("keys", values.type.key_type), ("items", values.type.item_type))
    )
    if not keys and not items:
        return None
    key, item = keys or json_ready, items or json_ready
    return lambda value: None if value is None else [[key(k), item(v)] for k, v in value]
