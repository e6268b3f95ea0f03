"""The metadata that Milvus filters by: for each field of the metadata a column of values, and one of their states.

Values are converted as `lookalike.comparisons` compares them: text in NFC, dates as whole numbers. Milvus 2.3 has no
nulls, so a second column says whether a row has a value. A field that Milvus can't hold is left out; filters on it are
evaluated by the collection.

Dimension letters: n rows of the collection, m rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.columns import Columns, field_names, field_values, flatten, is_list
from lookalike.comparisons import comparable

MAX_COLUMNS = 60
"""Milvus holds 64 columns of a collection by default; row and vector are two of them."""
_MAX_TEXT_BYTES, _MAX_ELEMENTS = 65_535, 4_096

ABSENT, COMPARABLE, INCOMPARABLE = 0, 1, 2
"""States of a row: it has no value; a value that can be compared; one that can't, which is not a number."""


@dataclass(frozen=True, slots=True)
class MilvusField:
    """A field of the metadata in Milvus.

    Attributes:
        value: name of the column of values.
        state: name of the column of states; None if every row has a comparable value.
        kind: `int64`, `double`, `bool` or `string`.
        repeated: whether a row has a list of values.
        width: bytes of the longest text, and elements of the longest list.
    """

    value: str
    state: str | None
    kind: str
    repeated: bool
    width: tuple[int, int] = (0, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the field JSON-ready, for the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> MilvusField:
        """Return the field that `to_dict` described."""
        return cls(**{**record, "width": tuple(record["width"])})


def milvus_fields(metadata: Columns) -> dict[str, MilvusField]:
    """Return name -> field, of the first fields that Milvus can hold."""
    fields: dict[str, MilvusField] = {}
    used = 0
    for name in field_names(metadata):
        if name == "id" or used + 2 > MAX_COLUMNS:
            continue
        if field := _field(f"v{used}", f"s{used}", field_values(name, metadata)):
            fields[name] = field
            used += 1 + (field.state is not None)
    return fields


def _field(value: str, state: str, values: pa.ChunkedArray) -> MilvusField | None:
    """Return the field of (n,) values; None if Milvus can't hold them."""
    elements, rows = flatten(values)
    plain = comparable(elements).plain() if len(elements) else None
    if plain is None or (pa.types.is_floating(plain.type) and pc.any(pc.is_inf(plain)).as_py()):
        return None
    texts = pc.max(pc.binary_length(plain)).as_py() or 0 if pa.types.is_string(plain.type) else 0
    longest = int(np.bincount(rows).max()) if rows is not None and len(rows) else 0
    if texts > _MAX_TEXT_BYTES or longest > _MAX_ELEMENTS:
        return None
    complete = values.null_count == 0 and not _has_nan(plain)
    return MilvusField(value, None if complete else state, str(plain.type), rows is not None, (texts, longest))


def _has_nan(plain: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_floating(plain.type) and pc.any(pc.is_nan(plain)).as_py())


def column_values(metadata: Columns, fields: dict[str, MilvusField], start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Yield the columns of the rows from `start` to `stop`, one record for each row."""
    columns: dict[str, list[Any]] = {}
    for name, field in fields.items():
        values = field_values(name, metadata).slice(start, stop - start)
        block = pa.chunked_array([pa.concat_arrays(values.chunks)] if values.num_chunks else [], values.type)
        columns[field.value], states = _lists(block) if field.repeated else _scalars(block, field)
        if field.state is not None:
            columns[field.state] = states
    for i in range(stop - start):
        yield {name: values[i] for name, values in columns.items()}


_DEFAULTS: dict[str, Any] = {"int64": 0, "double": 0.0, "bool": False, "string": ""}


def _scalars(block: pa.ChunkedArray, field: MilvusField) -> tuple[list[Any], list[int]]:
    """Return (m,) values and states."""
    plain = comparable(block).plain()
    assert plain is not None
    values = plain.to_pylist()
    states = [ABSENT if value is None else COMPARABLE if value == value else INCOMPARABLE for value in values]
    return [
        value if state == COMPARABLE else _DEFAULTS[field.kind] for value, state in zip(values, states, strict=True)
    ], states


def _lists(block: pa.ChunkedArray) -> tuple[list[list[Any]], list[int]]:
    """Return (m,) lists of the values that can be compared, and states."""
    elements, rows = flatten(block)
    plain = comparable(elements).plain() if len(elements) else None
    lists: list[list[Any]] = [[] for _ in range(len(block))]
    for row, value in zip(
        rows if rows is not None else (), plain.to_pylist() if plain is not None else (), strict=True
    ):
        if value is not None and value == value:
            lists[row].append(value)
    return lists, [COMPARABLE if present else ABSENT for present in block.is_valid().to_pylist()]


def element_type(values: pa.ChunkedArray) -> pa.DataType:
    """Return the type of the elements of lists of any depth; that of the values if they are no lists."""
    kind = values.type
    while is_list(kind):
        kind = kind.value_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind
