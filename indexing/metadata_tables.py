"""Tables of metadata with one type a column, so that images of different sources share a table.

Types that a source states are kept; those of JSON are inferred from the values. Where values or sources disagree on a
column's type, numbers become the narrowest type that holds both, and other columns text: nested values as JSON.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from itertools import chain
from typing import Any

import pyarrow as pa

from lookalike.errors import SourceError
from lookalike.sources.columns import valid_text

_CONVERSION_ERRORS = (ValueError, TypeError, OverflowError, pa.ArrowException)
"""Raised by pyarrow where values have no common type, or can't be cast."""

_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
"""Bits of an integer type -> decimal digits of its longest value."""
_MAX_DECIMAL128_DIGITS, _MAX_DECIMAL_DIGITS = 38, 76


def table_from_records(
    records: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType] | None = None
) -> pa.Table:
    """Return a table with a column for every name that occurs.

    Args:
        records: the rows.
        types: columns whose type is known, present in the records or not; they come first. Other types are inferred.
    """
    types = types or {}
    names = dict.fromkeys(chain(types, (name for record in records for name in record)))
    return pa.table({valid_text(name): _array([r.get(name) for r in records], types.get(name)) for name in names})


def common_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Return one schema for all: columns in order of appearance, each of a type that can hold every schema's.

    >>> common_schema([pa.schema([("a", pa.int64())]), pa.schema([("a", pa.string()), ("b", pa.null())])])
    a: string
    b: null
    """
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            kind = stored_type(field.type)
            types[field.name] = _common_type(types.get(field.name, pa.null()), kind) or pa.string()
    return pa.schema(list(types.items()))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with exactly the schema's columns; those that it lacks are null.

    Raises:
        SourceError: a value is outside the range of its column's type.
    """
    names = set(table.column_names)
    columns = [
        _cast(table.column(field.name), field) if field.name in names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which a collection stores a column, one that Parquet, pandas and memory-mapping support.

    Encodings and views become the plain type of the same values, extension types but UUID their storage type. What
    Parquet can't store, such as a record without fields, becomes text.

    >>> stored_type(pa.list_(pa.dictionary(pa.int8(), pa.string_view())))
    ListType(list<item: string>)
    """
    return _plain(kind) or pa.string()


def _plain(kind: pa.DataType) -> pa.DataType | None:
    """Return the plain type of the same values; None if Parquet can't store it."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        if isinstance(kind, pa.UuidType):
            return kind
        return pa.bool_() if isinstance(kind, pa.Bool8Type) else _plain(kind.storage_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_interval(kind) or pa.types.is_union(kind):
        return None
    return _plain_nested(kind) if pa.types.is_nested(kind) else kind


def _plain_nested(kind: pa.DataType) -> pa.DataType | None:
    fields = [kind.field(i) for i in range(kind.num_fields)]
    inner = [_plain(field.type) for field in fields]
    if not inner or None in inner:
        return None
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, plain) for field, plain in zip(fields, inner, strict=True)])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner[0], kind.list_size)
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(inner[0])
    return pa.list_(inner[0])


def _array(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    for choice in (None,) if kind is None else (stored_type(kind), None):
        try:
            return pa.array(values, choice)
        except _CONVERSION_ERRORS:
            continue
    return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else valid_text(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, date | time | Decimal | uuid.UUID):
        return value.isoformat() if isinstance(value, date | time) else str(value)
    return valid_text(json.dumps(value, ensure_ascii=False, default=str))


def _common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Return a type that holds the values of both; None if only text does."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if _is_list(a) and _is_list(b):
        item = _common_type(a.value_type, b.value_type)
        large = pa.types.is_large_list(a) or pa.types.is_large_list(b)
        return item and (pa.large_list(item) if large else _list_of(item, a, b))
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        return _common_struct(a, b)
    if _is_exact(a) and _is_exact(b):
        return _common_exact(a, b)
    if (_is_exact(a) and pa.types.is_floating(b)) or (_is_exact(b) and pa.types.is_floating(a)):
        return pa.float64()
    if _is_text(a) != _is_text(b):
        return None
    if pa.types.is_timestamp(a) and pa.types.is_timestamp(b) and a.tz and b.tz:
        a, b = pa.timestamp(a.unit, "UTC"), pa.timestamp(b.unit, "UTC")
    try:
        both = [pa.schema([("value", kind)]) for kind in (a, b)]
        return pa.unify_schemas(both, promote_options="permissive").field(0).type
    except _CONVERSION_ERRORS:
        return None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _list_of(item: pa.DataType, a: pa.DataType, b: pa.DataType) -> pa.DataType:
    sizes = {kind.list_size if pa.types.is_fixed_size_list(kind) else -1 for kind in (a, b)}
    return pa.list_(item, sizes.pop() if len(sizes) == 1 else -1)


def _common_struct(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    types: dict[str, pa.DataType | None] = {field.name: field.type for field in a}
    for field in b:
        types[field.name] = _common_type(types.get(field.name) or pa.null(), field.type)
    return None if None in types.values() else pa.struct(list(types.items()))


def _is_exact(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _common_exact(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Return the narrowest integer type that holds both, else a decimal; None if it had too many digits."""
    decimals = [kind for kind in (a, b) if pa.types.is_decimal(kind)]
    signed = [kind for kind in (a, b) if pa.types.is_signed_integer(kind)]
    if not decimals and not (signed and pa.uint64() in (a, b)):
        return (
            pa.unify_schemas([pa.schema([("value", kind)]) for kind in (a, b)], promote_options="permissive")
            .field(0)
            .type
        )
    scale = max(kind.scale for kind in decimals) if decimals else 0
    whole = max(
        kind.precision - kind.scale if pa.types.is_decimal(kind) else _INTEGER_DIGITS[kind.bit_width] for kind in (a, b)
    )
    if whole + scale > _MAX_DECIMAL_DIGITS:
        return None
    return (pa.decimal128 if whole + scale <= _MAX_DECIMAL128_DIGITS else pa.decimal256)(whole + scale, scale)


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if column.type == field.type:
        return column
    if _is_text(field.type) and not _is_text(_plain(column.type) or pa.null()):
        return pa.array([_text(value) for value in column.to_pylist()], field.type)
    try:
        return column.cast(field.type, safe=not pa.types.is_floating(field.type))  # floats round, as documented
    except _CONVERSION_ERRORS:
        pass
    try:
        return pa.array(column.to_pylist(), field.type)
    except _CONVERSION_ERRORS as error:
        raise SourceError(f"column {field.name} has values that {field.type} can't hold: {error}") from error
