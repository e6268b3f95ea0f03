"""Facets of columns of every type, and the order of items."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike import metadata as metadata_module
from lookalike.columns import field_names
from lookalike.errors import FilterInvalid, InvalidLimit, QueryError
from lookalike.facets import ValueCount, facet, plain_type
from lookalike.filters import Filter
from lookalike.histograms import bin_edges
from lookalike.item_table import ItemTable
from lookalike.metadata import Metadata, write_metadata

_UUID = UUID("2f1c0f4e-0d5c-4c1e-9a52-0a6d4bd1d001")
_NAN, _INF = float("nan"), float("inf")
TABLE = pa.table(
    {
        "id": ["a", "b", "c", "d"],
        "brand": pa.array(["acme", "orbit", None, "acme"]),
        "kind": pa.array(["hat", None, "shoe", "hat"]).dictionary_encode(),
        "view": pa.array(["hat", None, "shoe", "hat"], pa.string_view()),
        "cafe": pa.array(["cafe\u0301", "caf\u00e9", None, "cafe"]),
        "tags": pa.array([["red", "red", "small"], None, [], ["red", None]]),
        "codes": pa.array([[[7, 8], [7]], None, [], [[7]]]),
        "fixed": pa.array([[0.5, 1.5], None, [2.5, 2.5], [3.5, _NAN]], pa.list_(pa.float32(), 2)),
        "new": pa.array([True, False, None, True]),
        "stock": pa.array([3, 0, None, 3], pa.int8()),
        "hash": pa.array([2**64 - 1, 0, None, 0], pa.uint64()),
        "price": pa.array([1.5, _NAN, _INF, None]),
        "short": pa.array([0.1, None, 0.3, -_INF], pa.float32()),
        "half": pa.array(np.array([0.1, 2, 3, 60_000], np.float16)),
        "money": pa.array([Decimal("1.50"), None, Decimal("99.99"), Decimal("2.00")], pa.decimal128(5, 2)),
        "day": pa.array([date(2024, 1, 1), None, date(2026, 6, 1), date(2024, 1, 1)]),
        "seen": pa.array([datetime(2024, 1, 1, 12), None, datetime(2024, 1, 1, 13), None], pa.timestamp("ns", "UTC")),
        "at": pa.array([time(9), None, time(17), time(12)]),
        "took": pa.array([timedelta(seconds=1.5), None, timedelta(minutes=1), timedelta(0)]),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([_UUID.bytes, None, None, None], pa.binary(16))),
        "nan": pa.array([_NAN, _NAN, None, None]),
        "nothing": pa.nulls(4),
        "blob": pa.array([b"x", None, b"y", b"z"]),
        "exif": pa.array([{"iso": 100, "by": {"lens": "x"}}, None, {"iso": 400}, {"iso": None}]),
        "faces": pa.array([[{"x": 1}], None, [], [{"x": 2}]]),
        "pairs": pa.array([[("k", 1)], None, [], []], pa.map_(pa.string(), pa.int64())),
    }
)


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Metadata:
    folder = tmp_path_factory.mktemp("facets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata_module, "_ROWS_PER_BATCH", 3)  # several record batches
        write_metadata(folder, TABLE.schema, [TABLE])
    return Metadata(folder)


@pytest.fixture(scope="module")
def table(metadata: Metadata) -> ItemTable:
    return ItemTable(metadata)


def values(*pairs: tuple[Any, int]) -> list[ValueCount]:
    return [ValueCount(value, count) for value, count in pairs]


@pytest.mark.parametrize(
    ("name", "kind", "count", "distinct", "listed"),
    [
        ("id", "text", 4, 4, values(("a", 1), ("b", 1), ("c", 1), ("d", 1))),
        ("brand", "text", 3, 2, values(("acme", 2), ("orbit", 1))),
        ("kind", "text", 3, 2, values(("hat", 2), ("shoe", 1))),
        ("view", "text", 3, 2, values(("hat", 2), ("shoe", 1))),
        ("cafe", "text", 3, 2, values(("caf\u00e9", 2), ("cafe", 1))),
        ("tags", "list of text", 3, 2, values(("red", 2), ("small", 1))),
        ("codes", "list of list of integer", 3, 2, values((7, 2), (8, 1))),
        ("new", "boolean", 3, 2, values((True, 2), (False, 1))),
        ("uuid", "uuid", 1, 1, values((str(_UUID), 1))),
        ("exif.by.lens", "text", 1, 1, values(("x", 1))),
    ],
)
def test_values_are_counted_by_items(
    metadata: Metadata, name: str, kind: str, count: int, distinct: int, listed: Any
) -> None:
    found = facet(name, metadata)
    assert (found.type, found.count, found.distinct, found.values) == (kind, count, distinct, listed)


@pytest.mark.parametrize(
    ("name", "kind", "low", "high", "edges", "counts"),
    [
        ("stock", "integer", 0, 3, [0, 1, 2, 3, 4], [1, 0, 0, 2]),
        ("hash", "integer", "0", str(2**64 - 1), [str(i * 5 * 10**18) for i in range(5)], [2, 0, 0, 1]),
        ("codes", "list of list of integer", 7, 8, [7, 8, 9], [2, 1]),
        ("fixed", "list of number", 0.5, 3.5, [0.0, 1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1]),
        ("price", "number", 1.5, 1.5, [1.0, 2.0], [1]),
        ("short", "number", 0.1, 0.3, [0.1, 0.15, 0.2, 0.25, 0.3, 0.35], [1, 0, 0, 0, 1]),
        ("half", "number", 0.1, 60_000.0, [0.0, 20_000.0, 40_000.0, 60_000.0, 80_000.0], [3, 0, 0, 1]),
        ("money", "number", "1.50", "99.99", ["0", "20", "40", "60", "80", "100"], [2, 0, 0, 0, 1]),
        ("took", "duration", 0.0, 60.0, [0.0, 20.0, 40.0, 60.0, 80.0], [2, 0, 0, 1]),
        (
            "day",
            "date",
            "2024-01-01",
            "2026-06-01",
            ["2024-01-01", "2025-01-01", "2026-01-01", "2027-01-01"],
            [2, 0, 1],
        ),
        (
            "seen",
            "datetime",
            "2024-01-01T12:00:00+00:00",
            "2024-01-01T13:00:00+00:00",
            [f"2024-01-01T{hour}:00+00:00" for hour in ("12:00", "12:15", "12:30", "12:45", "13:00", "13:15")],
            [1, 0, 0, 0, 1],
        ),
        ("exif.iso", "integer", 100, 400, [100, 200, 300, 400, 500], [1, 0, 0, 1]),
    ],
)
def test_ranges_and_histograms(
    metadata: Metadata, name: str, kind: str, low: Any, high: Any, edges: list[Any], counts: list[int]
) -> None:
    found = facet(name, metadata, bins=5)
    assert (found.type, found.minimum, found.maximum) == (kind, low, high)
    assert found.histogram is not None
    assert (found.histogram.edges, found.histogram.counts) == (edges, counts)


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("nan", "number", 2),
        ("nothing", "null", 0),
        ("blob", "binary", 3),
        ("exif", "record", 3),
        ("exif.by", "record", 1),
        ("faces", "list of record", 3),
        ("pairs", "map", 3),
    ],
)
def test_columns_without_values_or_range(metadata: Metadata, name: str, kind: str, count: int) -> None:
    found = facet(name, metadata)
    nothing = {"distinct": None, "values": None, "minimum": None, "maximum": None, "histogram": None}
    assert asdict(found) == {"name": name, "type": kind, "count": count, **nothing}


def test_times_of_day_have_a_range_only(metadata: Metadata) -> None:
    found = facet("at", metadata)
    assert (found.type, found.minimum, found.maximum, found.histogram) == ("time", "09:00:00", "17:00:00", None)


def test_every_field_is_described_under_every_filter(table: ItemTable, metadata: Metadata) -> None:
    names = field_names(metadata)
    assert names[-6:] == ["exif", "exif.iso", "exif.by", "exif.by.lens", "faces", "pairs"]
    assert [each.name for each in table.fields] == names
    assert table.fields is table.fields
    for number in ("0", "1", "4"):
        condition = Filter.model_validate({"must": [{"field": "id", "in": list("abcd")[: int(number)]}]})
        found = table.facets(condition)
        assert [each.name for each in found] == names
        assert all(each.count <= int(number) for each in found)


def test_counts_are_what_filters_find(table: ItemTable) -> None:
    def count(name: str, **test: Any) -> int:
        return table.count(Filter.model_validate({"must": [{"field": name, **test}]}))

    for each in table.fields:
        assert each.count == count(each.name, exists=True), each
        for value in each.values or []:
            assert value.count == count(each.name, equals=value.value), each
        if each.histogram is not None:
            for (low, high), found in zip(pairwise(each.histogram.edges), each.histogram.counts, strict=True):
                assert found == count(each.name, range={"gte": low, "lt": high}), (each, low)
        if each.minimum is not None and each.name not in ("price", "short"):  # these hold infinities
            assert count(each.name, range={"lt": each.minimum}) == count(each.name, range={"gt": each.maximum}) == 0
            assert count(each.name, range={"lte": each.minimum}) * count(each.name, range={"gte": each.maximum}) > 0


def test_empty_tables_have_empty_facets() -> None:
    class Empty:
        columns = TABLE.column_names

        def column(self, name: str) -> pa.ChunkedArray:
            return TABLE.column(name).slice(0, 0)

        def __len__(self) -> int:
            return 0

    for name in field_names(Empty()):
        found = facet(name, Empty())
        assert (found.count, found.distinct or 0, found.minimum, found.histogram) == (0, 0, None, None)


def test_fields_that_no_filter_can_name_are_left_out() -> None:
    record = pa.struct([("", pa.int8()), ("x.y", pa.int8()), ("z", pa.int8()), ("z", pa.int8()), ("w", pa.int8())])

    class Odd:
        columns = ("a.b", "r", "r.w")

        def column(self, name: str) -> pa.ChunkedArray:
            return pa.chunked_array([pa.nulls(1, record if name != "r.w" else pa.string())])

        def __len__(self) -> int:
            return 1

    assert field_names(Odd()) == ["a.b", "r", "r.w"]  # type: ignore[arg-type]
    assert facet("r.w", Odd()).type == "text"  # type: ignore[arg-type]


def test_most_frequent_values_are_listed(tmp_path: Path) -> None:
    numbers = [str(i) for i in range(300) for _ in range(1 + (i % 7 == 0))]
    columns = pa.table({"id": [f"{i}" for i in range(len(numbers))], "number": numbers})
    write_metadata(tmp_path, columns.schema, [columns])
    found = facet("number", Metadata(tmp_path), limit=50)
    expected = sorted(Counter(numbers).items(), key=lambda pair: (-pair[1], pair[0]))[:50]
    assert found.distinct == 300
    assert found.values == values(*expected)


def test_wrong_arguments_are_rejected(table: ItemTable) -> None:
    with pytest.raises(QueryError, match="fields: unknown metadata column 'brnad'; did you mean 'brand'"):
        table.facets(names=["id", "brnad"])
    with pytest.raises(QueryError, match=r"'exif\.f': exif has no 'f'; it is struct"):
        table.facets(names=["exif.f"])
    with pytest.raises(InvalidLimit, match="limit is 0"):
        table.facets(limit=0)
    for bins in (1, 101):
        with pytest.raises(QueryError, match=f"bins is {bins}"):
            table.facets(bins=bins)
    with pytest.raises(FilterInvalid):
        table.count(Filter.model_validate({"must": [{"field": "x", "equals": 1}]}))


def test_type_names_are_plain() -> None:
    assert plain_type(pa.large_list(pa.large_string())) == "list of text"
    assert plain_type(pa.binary(3)) == plain_type(pa.large_binary()) == "binary"
    assert plain_type(pa.month_day_nano_interval()) == "month_day_nano_interval"


# Histograms


@settings(max_examples=300, deadline=None)
@given(
    low=st.floats(allow_nan=False, allow_infinity=False),
    high=st.floats(allow_nan=False, allow_infinity=False),
    bins=st.integers(2, 100),
)
def test_float_edges_hold_the_range(low: float, high: float, bins: int) -> None:
    low, high = min(low, high), max(low, high)
    edges = bin_edges(low, high, bins)
    assert edges == sorted(edges)
    assert 2 <= len(edges) <= bins + 1
    assert edges[0] <= low
    assert high <= edges[-1]


@settings(max_examples=300, deadline=None)
@given(low=st.integers(-(2**63), 2**64), span=st.integers(0, 2**64), bins=st.integers(2, 100))
def test_integer_edges_hold_the_range(low: int, span: int, bins: int) -> None:
    edges = bin_edges(low, low + span, bins)
    assert len(edges) <= bins + 1
    assert edges[0] <= low <= low + span < edges[-1]
    assert {edges[1] - edges[0]} == {b - a for a, b in pairwise(edges)}


@settings(max_examples=300, deadline=None)
@given(low=st.datetimes(), high=st.datetimes(), bins=st.integers(2, 100), zone=st.sampled_from([None, UTC]))
def test_time_edges_hold_the_range(low: datetime, high: datetime, bins: int, zone: Any) -> None:
    low, high = (each.replace(tzinfo=zone) for each in (min(low, high), max(low, high)))
    edges = bin_edges(low, high, bins)
    assert edges == sorted(edges)
    assert len(edges) <= bins + 1
    assert edges[0] <= low
    assert high <= edges[-1]
    days = bin_edges(low.date(), high.date(), bins)
    assert days[0] <= low.date() <= high.date() <= days[-1]
    assert len(set(days)) == len(days) <= bins + 1


@pytest.mark.parametrize(
    ("low", "high", "bins", "expected"),
    [
        (date(2019, 3, 5), date(2025, 8, 1), 10, [f"{year}-01-01" for year in range(2019, 2027)]),
        (date(2024, 1, 31), date(2024, 3, 1), 4, ["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01"]),
        (date(2024, 1, 31), date(2024, 2, 6), 5, ["2024-01-29", "2024-02-05", "2024-02-12"]),
        (date(2024, 1, 31), date(2024, 1, 31), 5, ["2024-01-31", "2024-02-01"]),
        (date(2024, 1, 1), date.max, 3, ["0001-01-01", "5000-01-01", "9999-12-31"]),
    ],
)
def test_date_edges_are_starts_of_the_calendar(low: date, high: date, bins: int, expected: list[str]) -> None:
    assert [edge.isoformat() for edge in bin_edges(low, high, bins)] == expected


# Counts


_ROW = st.fixed_dictionaries(
    {
        "price": st.none() | st.integers(0, 9),
        "brand": st.none() | st.text("ab", max_size=2),
        "tags": st.none() | st.lists(st.sampled_from(["x", "y"]), max_size=3),
        "new": st.none() | st.booleans(),
    }
)
_SCHEMA = pa.schema(
    [("price", pa.int64()), ("brand", pa.string()), ("tags", pa.list_(pa.string())), ("new", pa.bool_())]
)
_CONDITION = st.one_of(
    st.builds(lambda v: ({"field": "price", "equals": v}, lambda row: row["price"] == v), st.integers(0, 9)),
    st.builds(
        lambda v: ({"field": "price", "range": {"gte": v}}, lambda row: row["price"] is not None and row["price"] >= v),
        st.integers(0, 9),
    ),
    st.builds(lambda v: ({"field": "tags", "equals": v}, lambda row: v in (row["tags"] or [])), st.sampled_from("xy")),
    st.builds(lambda v: ({"field": "brand", "exists": v}, lambda row: (row["brand"] is not None) == v), st.booleans()),
)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(_ROW, max_size=12), must=st.lists(_CONDITION, max_size=2), must_not=st.lists(_CONDITION, max_size=2)
)
def test_counts_agree_with_a_loop(rows: list[dict[str, Any]], must: Any, must_not: Any) -> None:
    class InMemory:
        columns = _SCHEMA.names

        def column(self, name: str) -> pa.ChunkedArray:
            return pa.Table.from_pylist(rows, _SCHEMA).column(name)

        def __len__(self) -> int:
            return len(rows)

    condition = Filter.model_validate({"must": [test for test, _ in must], "must_not": [test for test, _ in must_not]})
    passed = [
        row for row in rows if all(holds(row) for _, holds in must) and not any(holds(row) for _, holds in must_not)
    ]
    table = ItemTable(InMemory())  # type: ignore[arg-type]
    assert table.count(condition) == len(passed)
    found = {each.name: each for each in table.facets(condition, bins=4)}
    for name in _SCHEMA.names:
        cells = [row[name] for row in passed if row[name] is not None]
        elements = [element for cell in cells for element in (set(cell) if name == "tags" else {cell})]
        assert found[name].count == len(cells)
        if name == "price":
            assert found[name].minimum == min(cells, default=None)
            assert found[name].maximum == max(cells, default=None)
            histogram = found[name].histogram
            bins = (
                [] if histogram is None else zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False)
            )
            assert [count for *_, count in bins] == [
                sum(low <= cell < high for cell in cells)
                for low, high in (zip(histogram.edges, histogram.edges[1:], strict=False) if histogram else [])
            ]
        else:
            assert {each.value: each.count for each in found[name].values or []} == Counter(elements)
            assert found[name].distinct == len(set(elements))


# Order


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("brand", "adbc"),
        ("-brand", "badc"),
        ("kind", "adcb"),
        ("view", "adcb"),
        ("new", "badc"),
        ("stock", "badc"),
        ("-stock", "adbc"),
        ("price", "acbd"),
        ("-price", "cabd"),
        ("short", "dacb"),
        ("-half", "dcba"),
        ("money", "adcb"),
        ("-day", "cadb"),
        ("took", "dacb"),
        ("uuid", "abcd"),
        ("nothing", "abcd"),
        ("-nan", "abcd"),
        ("-exif.iso", "cabd"),
    ],
)
def test_order_is_stable_with_missing_values_last(table: ItemTable, sort: str, expected: str) -> None:
    assert "".join("abcd"[row] for row in table.rows(sort=sort)) == expected
    condition = Filter.model_validate({"must_not": [{"field": "id", "equals": "a"}]})
    assert "".join("abcd"[row] for row in table.rows(condition, sort)) == expected.replace("a", "")


@pytest.mark.parametrize("name", ["tags", "exif", "faces", "pairs", "blob"])
def test_columns_without_an_order_are_named(table: ItemTable, name: str) -> None:
    with pytest.raises(QueryError, match=rf"sort: '{name}' holds .*, which has no order; sort by one of id, brand,"):
        table.rows(sort=f"-{name}")
