"""Tables of metadata with one type a column, so that images of different sources share a table.

Where values or sources disagree on a column's type, it becomes text: numbers and nested values as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lookalike.sources.columns import valid_text

_CONVERSION_ERRORS = (ValueError, TypeError, OverflowError, pa.ArrowException)
"""Raised by pyarrow where values have no common type, or can't be cast."""


def table_from_records(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return a table with a column for every name that occurs, in order of appearance."""
    names = dict.fromkeys(name for record in records for name in record)
    return pa.table({valid_text(name): _array([record.get(name) for record in records]) for name in names})


def common_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Return one schema for all: columns in order of appearance, each of a type that can hold every schema's.

    >>> common_schema([pa.schema([("a", pa.int64())]), pa.schema([("a", pa.string()), ("b", pa.null())])])
    a: string
    b: string
    """
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            types[field.name] = _common_type(types.get(field.name, pa.null()), field.type)
    return pa.schema([(name, type_ if _storable(type_) else pa.string()) for name, type_ in types.items()])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with exactly the schema's columns; those that it lacks are null."""
    names = set(table.column_names)
    columns = [
        _cast(table.column(field.name), field.type) if field.name in names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except _CONVERSION_ERRORS:
        return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else valid_text(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return valid_text(json.dumps(value, ensure_ascii=False, default=str))


def _common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if {a, b} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if a.id != b.id:
        return pa.string()
    try:
        both = [pa.schema([("value", kind)]) for kind in (a, b)]
        return pa.unify_schemas(both, promote_options="permissive").field(0).type
    except _CONVERSION_ERRORS:
        return pa.string()


def _storable(kind: pa.DataType) -> bool:
    """Return whether Parquet can store the type: no null column, no struct without fields, no extension type."""
    if pa.types.is_null(kind) or isinstance(kind, pa.BaseExtensionType):
        return False
    if pa.types.is_struct(kind) and not kind.num_fields:
        return False
    return all(_storable(kind.field(i).type) for i in range(kind.num_fields))


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_string(kind):
        return pa.array([_text(value) for value in column.to_pylist()], kind)
    try:
        return column.cast(kind)
    except _CONVERSION_ERRORS:
        return pa.array(column.to_pylist(), kind)
