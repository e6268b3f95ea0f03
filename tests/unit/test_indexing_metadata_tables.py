"""Metadata tables of any values."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexing import metadata_tables as tables_module
from indexing.metadata_tables import common_schema, conform, table_from_records

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "1", "\ud800", "ü"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=5,
)


chunks_of_json = st.lists(st.dictionaries(st.sampled_from("abc"), json_values), min_size=1, max_size=4)


def test_matching_types_are_kept() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    records = [{"n": 1, "x": 0.5, "s": "a", "t": now, "d": Decimal("1.5"), "l": [1], "b": True}, {}]
    table = table_from_records(records)
    assert conform(table, common_schema([table.schema])).to_pylist()[0] == records[0]


def test_different_types_become_text() -> None:
    tables = [
        table_from_records([{"a": 1, "b": 1}]),
        table_from_records([{"a": "x", "b": 1.5}]),
        table_from_records([{"a": [1], "c": None}]),
    ]
    schema = common_schema(table.schema for table in tables)
    rows = [conform(table, schema).to_pylist()[0] for table in tables]
    assert [row["a"] for row in rows] == ["1", "x", "[1]"]
    assert [row["b"] for row in rows] == [1.0, 1.5, None]
    assert schema.field("c").type == pa.null()  # so that a filter on it does not meet an unknown column


def test_mixed_values_become_text() -> None:
    table = table_from_records([{"a": 1}, {"a": "x"}, {"a": {"k": [None]}}, {"a": None}])
    assert table.column("a").to_pylist() == ["1", "x", '{"k": [null]}', None]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(chunks_of_json, min_size=1, max_size=4))
def test_any_json_can_be_stored(chunks: list[list[dict[str, Any]]]) -> None:
    tables = [table_from_records([{"id": "i", **record} for record in chunk]) for chunk in chunks]
    schema = common_schema(table.schema for table in tables)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema) as writer:
        for table, chunk in zip(tables, chunks, strict=True):
            whole = conform(table, schema)
            assert len(whole) == len(chunk)
            writer.write_table(whole)


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(tables_module).failed == 0
