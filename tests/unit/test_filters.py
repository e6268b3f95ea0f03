"""Filters over metadata: every operator against plain Python, types that do not fit, and what is no filter."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike import metadata as metadata_module
from lookalike.errors import FilterInvalid
from lookalike.filters import MAX_CONDITIONS, MAX_DEPTH, filter_mask, parse_filter
from lookalike.metadata import Metadata, write_metadata

ROWS: list[dict[str, Any]] = [
    {"id": "a", "brand": "acme", "price": 5, "weight": 1.5, "new": True, "tags": ["red", "small"]},
    {"id": "b", "brand": "orbit", "price": 20, "weight": None, "new": False, "tags": []},
    {"id": "c", "brand": None, "price": None, "weight": -2.0, "new": None, "tags": None},
    {"id": "d", "brand": "acme corp", "price": 7, "weight": 0.0, "new": True, "tags": ["blue"]},
]
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("brand", pa.string()),
        ("price", pa.int32()),
        ("weight", pa.float64()),
        ("new", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("day", pa.date32()),
        ("seen", pa.timestamp("us", "UTC")),
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("exif", pa.struct([("iso", pa.int64()), ("lens", pa.string())])),
    ]
)
MORE = {"kind": ["shoe", "hat", None, "shoe"], "exif": [{"iso": 100, "lens": "x"}, {"iso": 400}, None, {"iso": 200}]}


@pytest.fixture
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Metadata:
    monkeypatch.setattr(metadata_module, "_ROWS_PER_BATCH", 3)  # several record batches
    days = [date(2024, 1, day + 1) for day in range(4)]
    seen = [datetime(2024, 1, day + 1, 12, tzinfo=UTC) for day in range(4)]
    whole = [
        {**row, "day": day, "seen": at, **{name: values[i] for name, values in MORE.items()}}
        for i, (row, day, at) in enumerate(zip(ROWS, days, seen, strict=True))
    ]
    write_metadata(tmp_path, SCHEMA, [pa.Table.from_pylist(whole, SCHEMA)])
    return Metadata(tmp_path)


def ids(metadata: Metadata, document: dict[str, Any]) -> str:
    mask = filter_mask(parse_filter(json.dumps(document)), metadata)
    return "".join(str(ROWS[row]["id"]) for row in np.flatnonzero(mask))


def one(field: str, **test: Any) -> dict[str, Any]:
    return {"must": [{"field": field, **{name.rstrip("_"): value for name, value in test.items()}}]}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "abcd"),
        (one("brand", equals="acme"), "a"),
        (one("brand", prefix="acme"), "ad"),
        (one("brand", in_=["acme", "orbit"]), "ab"),
        (one("brand", in_=[]), ""),
        (one("brand", exists=True), "abd"),
        (one("brand", exists=False), "c"),
        (one("price", equals=7), "d"),
        (one("price", equals=7.5), ""),
        (one("price", in_=[5, 20]), "ab"),
        (one("price", in_=[5.0, 7.5, 20]), "ab"),
        (one("price", in_=[2**40, -(2**70), 1e300]), ""),
        (one("price", range={"gt": 5, "lte": 20}), "bd"),
        (one("price", range={"gte": 5.5}), "bd"),
        (one("weight", range={"lt": 0}), "c"),
        (one("weight", equals=0), "d"),
        (one("new", equals=True), "ad"),
        (one("new", in_=[False]), "b"),
        (one("tags", equals="red"), "a"),
        (one("tags", in_=["blue", "small"]), "ad"),
        (one("tags", prefix="s"), "a"),
        (one("tags", exists=True), "abd"),
        (one("day", equals="2024-01-02"), "b"),
        (one("day", range={"gte": "2024-01-03"}), "cd"),
        (one("seen", range={"lt": "2024-01-02T12:00:00Z"}), "a"),
        (one("seen", range={"lte": "2024-01-02T13:00:00+01:00"}), "ab"),
        (one("kind", equals="shoe"), "ad"),
        (one("exif.iso", range={"gte": 200}), "bd"),
        (one("exif.lens", exists=True), "a"),
        (one("id", in_=["a", "c", "z"]), "ac"),
        ({"must_not": [{"field": "brand", "equals": "acme"}]}, "bcd"),
        ({"should": [{"field": "price", "equals": 5}, {"field": "brand", "equals": "orbit"}]}, "ab"),
        (
            {
                "must": [{"should": [{"field": "new", "equals": True}, {"field": "price", "exists": False}]}],
                "must_not": [{"field": "weight", "range": {"lt": 0}}],
            },
            "ad",
        ),
    ],
)
def test_every_operator_selects_the_right_rows(metadata: Metadata, document: Any, expected: str) -> None:
    assert ids(metadata, document) == expected


@pytest.mark.parametrize(
    ("document", "match"),
    [
        (
            one("brnad", equals="acme"),
            r"unknown metadata column 'brnad'; did you mean 'brand'\? The columns are brand,",
        ),
        (one("zzz", equals="acme"), r"unknown metadata column 'zzz'\. The columns are brand,"),
        (one("price", equals="7 EUR"), r"'price' holds int32; value '7 EUR' can't be compared"),
        (one("price", equals=True), r"'price' holds int32; value True"),
        (one("price", in_=[5, True]), r"'price' holds int32; value True"),
        (one("price", in_=[5.5, "seven"]), r"'price' holds int32; value 'seven'"),
        (one("price", range={"gt": 5, "lt": None}), r"'price' holds int32; range None"),
        (one("price", prefix="1"), r"'price' holds int32; prefix '1'"),
        (one("brand", equals=3), r"'brand' holds string; value 3"),
        (one("brand", range={"gt": "a"}), r"'brand' holds string; range 'a'"),
        (one("new", equals=1), r"'new' holds bool; value 1"),
        (one("new", range={"gt": 0}), r"'new' holds bool; range 0"),
        (one("day", equals="yesterday"), r"'day' holds date32.*'yesterday'"),
        (one("day", equals=20240101), r"'day' holds date32.*20240101"),
        (one("exif.aperture", equals=1), r"exif has no 'aperture'"),
        (one("exif", equals="x"), r"'exif' holds struct"),
    ],
)
def test_filter_that_does_not_fit_the_columns(metadata: Metadata, document: Any, match: str) -> None:
    with pytest.raises(FilterInvalid, match=match):
        ids(metadata, document)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "JSON"),
        ("[]", "filter: "),
        ('{"mus": []}', r"filter\.mus: unknown key; a filter has must, should and must_not"),
        ('{"must": [{"brand": "acme"}]}', r"must\.0\.brand: unknown key; .* a condition has field"),
        (
            '{"must": [{"field": "a", "contains": "x"}]}',
            r"must\.0\.contains: unknown key; a condition has field and one",
        ),
        ('{"must": [{"field": "a"}]}', "exactly one of equals, in, range, prefix, exists"),
        ('{"must": [{"field": "a", "equals": 1, "prefix": "x"}]}', "exactly one of"),
        ('{"must": [{"field": "a", "equals": null}]}', "exists: false"),
        ('{"must": [{"field": "a", "range": {}}]}', "gt, gte, lt and lte"),
        ('{"must": [{"field": "a", "range": {"above": 1}}]}', r"range\.above: unknown key; a range has gt, gte,"),
        ('{"must": [{"field": "a", "exists": "yes"}]}', r"exists: .*boolean"),
        (
            '{"must": [{"field": "a", "equals": {"x": 1}}]}',
            r"must\.0\.equals: give a text or a number, or true or false",
        ),
        ('{"must": [{"field": "a", "in": [[1]]}]}', r"must\.0\.in\.0: give a text or a number, or true or false"),
        ('{"must": [{"field": "a", "range": {"lt": []}}]}', r"range\.lt: give a text or a number; a date is a text"),
        (json.dumps({"must": [{"field": "a", "equals": 1}] * (MAX_CONDITIONS + 1)}), f"at most {MAX_CONDITIONS}"),
    ],
)
def test_invalid_filter_is_rejected_with_its_location(text: str, match: str) -> None:
    with pytest.raises(FilterInvalid, match=match):
        parse_filter(text)


@pytest.mark.parametrize("test", ['"equals": 1e999', '"in": [1, -1e999]', '"range": {"lt": 1e999}'])
def test_infinite_numbers_are_rejected(test: str) -> None:
    with pytest.raises(FilterInvalid, match="finite"):
        parse_filter(f'{{"must": [{{"field": "price", {test}}}]}}')


def test_nesting_depth_is_limited() -> None:
    document: dict[str, Any] = {"must": [{"field": "a", "equals": 1}]}
    for _ in range(MAX_DEPTH):
        document = {"must": [document]}
    with pytest.raises(FilterInvalid, match=f"nested {MAX_DEPTH} deep"):
        parse_filter(json.dumps(document))


_CONDITIONS = st.one_of(
    st.builds(lambda v: ("price", {"equals": v}, lambda x: x == v), st.integers(0, 9)),
    st.builds(lambda v: ("price", {"in": v}, lambda x: x in v), st.lists(st.integers(0, 9), max_size=3)),
    st.builds(lambda v: ("price", {"range": {"gte": v}}, lambda x: x is not None and x >= v), st.integers(0, 9)),
    st.builds(
        lambda v: ("brand", {"prefix": v}, lambda x: x is not None and x.startswith(v)), st.text("ab", max_size=2)
    ),
    st.builds(lambda v: ("brand", {"exists": v}, lambda x: (x is not None) == v), st.booleans()),
)
_ROWS = st.lists(
    st.fixed_dictionaries({"price": st.none() | st.integers(0, 9), "brand": st.none() | st.text("ab", max_size=3)}),
    max_size=12,
)


class _Table:
    """Columns in memory."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._table = pa.Table.from_pylist(rows, pa.schema([("price", pa.int64()), ("brand", pa.string())]))
        self.columns = list(self._table.column_names)

    def column(self, name: str) -> pa.ChunkedArray:
        return self._table.column(name)

    def __len__(self) -> int:
        return len(self._table)


@settings(deadline=None)
@given(rows=_ROWS, must=st.lists(_CONDITIONS, max_size=2), should=st.lists(_CONDITIONS, max_size=2),
       must_not=st.lists(_CONDITIONS, max_size=2))  # fmt: skip
def test_filters_agree_with_plain_python(rows: Any, must: Any, should: Any, must_not: Any) -> None:
    def document(parts: Any) -> list[dict[str, Any]]:
        return [{"field": field, **test} for field, test, _ in parts]

    def holds(row: dict[str, Any], part: Any) -> bool:
        return bool(part[2](row[part[0]]))

    text = json.dumps({"must": document(must), "should": document(should), "must_not": document(must_not)})
    expected = [
        all(holds(row, part) for part in must)
        and (not should or any(holds(row, part) for part in should))
        and not any(holds(row, part) for part in must_not)
        for row in rows
    ]
    assert filter_mask(parse_filter(text), _Table(rows)).tolist() == expected


BIG = 2**63 + 5


@pytest.fixture
def numbers(tmp_path: Path) -> Metadata:
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "hash": pa.array([1, BIG, None], pa.uint64()),
            "far": pa.array([2**53 + 1, -5, 7], pa.int64()),
            "small": pa.array([0.1, 2.5, None], pa.float32()),
            "half": pa.array(np.array([0.1, 2, 3], np.float16)),
            "money": pa.array([Decimal("2.50"), Decimal("0.10"), None], pa.decimal128(5, 2)),
        }
    )
    write_metadata(tmp_path, table.schema, [table])
    return Metadata(tmp_path)


@pytest.mark.parametrize(
    ("field", "test", "expected"),
    [
        ("hash", {"equals": 1}, "a"),
        ("hash", {"equals": BIG}, "b"),
        ("hash", {"in": [BIG]}, "b"),
        ("hash", {"range": {"gt": -1}}, "ab"),
        ("hash", {"range": {"gte": 5}}, "b"),
        ("hash", {"range": {"lt": 2**70}}, "ab"),
        ("hash", {"range": {"gt": 2**64}}, ""),
        ("hash", {"equals": 1.5}, ""),
        ("far", {"equals": 9007199254740992.0}, ""),  # 2 ** 53, which is not 2 ** 53 + 1
        ("far", {"range": {"gt": 9007199254740992.0}}, "a"),
        ("far", {"range": {"gt": 6.5, "lt": 7.5}}, "c"),
        ("far", {"range": {"gte": -5, "lte": 7}}, "bc"),
        ("far", {"range": {"lt": -4.5}}, "b"),
        ("far", {"range": {"gt": -1e300, "lt": 1e300}}, "abc"),
        ("small", {"equals": 0.1}, "a"),
        ("small", {"in": [0.1]}, "a"),
        ("small", {"range": {"lte": 0.1}}, "a"),
        ("small", {"range": {"gt": 0.1}}, "b"),
        ("small", {"range": {"gt": 2}}, "b"),
        ("half", {"equals": 0.1}, "a"),
        ("half", {"in": [0.1, 3]}, "ac"),
        ("half", {"range": {"gt": 0.1}}, "bc"),
        ("half", {"range": {"gt": -1e300, "lt": 10**400}}, "abc"),
        ("half", {"equals": 0.5}, ""),
        ("half", {"range": {"gte": 2}}, "bc"),
        ("half", {"in": [2, 3]}, "bc"),
        ("money", {"in": [2.5, 7]}, "a"),
        ("money", {"in": [0.1, 2.5]}, "ab"),
        ("money", {"in": [2.555]}, ""),
        ("money", {"in": []}, ""),
        ("money", {"equals": 2.5}, "a"),
        ("money", {"range": {"lt": 1}}, "b"),
    ],
)
def test_numbers_are_compared_in_the_columns_type(
    numbers: Metadata, field: str, test: dict[str, Any], expected: str
) -> None:
    mask = filter_mask(parse_filter(json.dumps({"must": [{"field": field, **test}]})), numbers)
    assert "".join("abc"[row] for row in np.flatnonzero(mask)) == expected


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8),
    bound=st.one_of(st.integers(-(2**65), 2**65), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_integers_compare_as_in_python(values: list[int], bound: float) -> None:
    class One:
        columns = ("n",)

        def column(self, name: str) -> pa.ChunkedArray:
            return pa.chunked_array([pa.array(values, pa.int64())])

        def __len__(self) -> int:
            return len(values)

    for test, compare in (("gt", "__gt__"), ("gte", "__ge__"), ("lt", "__lt__"), ("lte", "__le__")):
        found = filter_mask(parse_filter(json.dumps({"must": [{"field": "n", "range": {test: bound}}]})), One())
        assert found.tolist() == [getattr(Fraction(value), compare)(Fraction(bound)) for value in values]
    found = filter_mask(parse_filter(json.dumps({"must": [{"field": "n", "equals": bound}]})), One())
    assert found.tolist() == [Fraction(value) == Fraction(bound) for value in values]


def test_only_the_first_error_is_reported() -> None:
    with pytest.raises(FilterInvalid) as caught:
        parse_filter(json.dumps({"must": [1] * 100_000}))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("empty", [{}, {"must": []}])
def test_empty_filters_count_towards_the_limit(empty: dict[str, Any]) -> None:
    with pytest.raises(FilterInvalid):
        parse_filter(json.dumps({"must": [empty] * (MAX_CONDITIONS + 1)}))
    with pytest.raises(FilterInvalid, match="at most"):
        parse_filter(json.dumps({"must": [empty] * MAX_CONDITIONS, "should": [empty]}))
