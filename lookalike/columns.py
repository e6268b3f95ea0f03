"""Columns of a table by name: those of the metadata, and the fields of its columns of records.

Dimension letters: n rows of the table, m elements of a column of lists.
"""

from __future__ import annotations

import difflib
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.errors import MAX_VALUE_CHARACTERS
from lookalike.messages import listed, quoted
from lookalike.types import Int64


class Columns(Protocol):
    """A table: a collection's metadata."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        ...

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the (n,) values of a column."""
        ...

    def __len__(self) -> int: ...


class UnknownField(Exception):
    """A name that is neither a column nor a field of one; the message says so and names what there is."""


def field_names(columns: Columns) -> list[str]:
    """Return the names of all columns, each followed by the fields of its records: `exif`, `exif.iso`, `exif.lens`."""
    names = [name for column in columns.columns for name in _names(column, columns.column(column).type)]
    return list(dict.fromkeys(names))


def _names(column: str, kind: pa.DataType) -> list[str]:
    return [column] if "." in column else list(_with_fields(column, kind))


def _with_fields(name: str, kind: pa.DataType) -> Iterator[str]:
    yield name
    if pa.types.is_struct(kind):
        counts = Counter(field.name for field in kind)
        for field in kind:
            if field.name and "." not in field.name and counts[field.name] == 1:  # else `field_values` can't find it
                yield from _with_fields(f"{name}.{field.name}", field.type)


def field_values(name: str, columns: Columns) -> pa.ChunkedArray:
    """Return the (n,) values of a column, or of a field of a column of records; categories are decoded.

    Raises:
        UnknownField: there is none of that name.
    """
    known = columns.columns
    if name in known:
        return _decoded(columns.column(name))
    outer, _, inner = name.partition(".")
    if not (inner and outer in known):
        close = difflib.get_close_matches(name, known, 1) if len(name) <= MAX_VALUE_CHARACTERS else []
        suggestion = f"; did you mean {close[0]!r}?" if close else "."
        columns_are = f"The columns are {listed(sorted(known))}"
        raise UnknownField(f"unknown metadata column {quoted(name)}{suggestion} {columns_are}")
    values = columns.column(outer)
    for step in inner.split("."):
        if not pa.types.is_struct(values.type) or values.type.get_field_index(step) < 0:
            reason = f"{outer} has no {quoted(inner)}; it is {type_name(values.type)}"
            raise UnknownField(f"unknown metadata column {quoted(name)}: {reason}")
        values = pc.struct_field(values, step)
    return _decoded(values)


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's lists that can be flattened."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def flatten(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Int64 | None]:
    """Return the (m,) elements of lists of any depth, and the (m,) ascending row of each; None for what is no list."""
    rows: Int64 | None = None
    while is_list(values.type):
        parents = pc.list_parent_indices(values).to_numpy()
        rows = parents.astype(np.int64, copy=False) if rows is None else rows[parents]
        values = _decoded(pc.list_flatten(values))
    return values, rows


def type_name(kind: pa.DataType) -> str:
    """Return Arrow's name of a type; that of a record with many fields is cut."""
    return textwrap.shorten(str(kind), MAX_VALUE_CHARACTERS, placeholder=" ...")
