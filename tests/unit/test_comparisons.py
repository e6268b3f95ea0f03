"""Comparison of columns with JSON values: each type against Python's exact numbers."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.comparisons import MAYBE_NOT_NFC
from lookalike.errors import FilterInvalid
from lookalike.filters import filter_mask, parse_filter

PRICE = Decimal("19.90")
OTHER_PRICE = Decimal("19.95")
LARGE = 2**63 + 5
ONE_ID, OTHER_ID = UUID(int=2**100 + 1), UUID(int=7)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class _Column:
    """A table of one column, x, in two chunks, the first row null."""

    columns = ("x",)

    def __init__(self, values: pa.Array) -> None:
        self._values = pa.chunked_array([pa.nulls(1, values.type), values])

    def column(self, name: str) -> pa.ChunkedArray:
        return self._values

    def __len__(self) -> int:
        return len(self._values)


def passing(values: pa.Array, **test: Any) -> list[int]:
    """Return the positions of the values that pass; null must not."""
    condition = {"field": "x", **{name.rstrip("_"): value for name, value in test.items()}}
    mask = filter_mask(parse_filter(json.dumps({"must": [condition]})), _Column(values))
    assert test.get("exists") is False or not mask[0]
    return [int(i) for i in np.flatnonzero(mask[1:])]


PRICES = pa.array([PRICE, OTHER_PRICE, Decimal("-1.00"), None], pa.decimal128(10, 2))


@pytest.mark.parametrize("width", [pa.decimal32(6, 2), pa.decimal64(10, 2), pa.decimal128(10, 2), pa.decimal256(50, 2)])
@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ({"equals": 19.9}, [0]),
        ({"equals": "19.90"}, [0]),
        ({"equals": "19.9000"}, [0]),
        ({"equals": "1990e-2"}, [0]),
        ({"equals": 19.901}, []),
        ({"equals": "19.9000000000000000000001"}, []),
        ({"in": [19.9, "19.95", 7]}, [0, 1]),
        ({"in": ["19.905"]}, []),
        ({"in": ["1e300", 10**60]}, []),
        ({"range": {"gte": 19.9}}, [0, 1]),
        ({"range": {"gte": "19.90"}}, [0, 1]),
        ({"range": {"gt": 19.9}}, [1]),
        ({"range": {"gt": "19.90"}}, [1]),
        ({"range": {"lte": 19.9}}, [0, 2]),
        ({"range": {"lte": "19.90"}}, [0, 2]),
        ({"range": {"lt": 19.9}}, [2]),
        ({"range": {"lt": "19.90"}}, [2]),
        ({"range": {"gt": 19.9, "lt": 19.95}}, []),
        ({"range": {"gte": "19.901"}}, [1]),
        ({"range": {"lt": "19.901"}}, [0, 2]),
        ({"range": {"gt": -1e300, "lt": "1e999999999"}}, [0, 1, 2]),
        ({"range": {"gt": "1e-999999999"}}, [0, 1]),
        ({"range": {"lt": "-1e999999999"}}, []),
    ],
)
def test_decimals_compare_as_written(width: pa.DataType, test: dict[str, Any], expected: list[int]) -> None:
    assert passing(PRICES.cast(width), **test) == expected


@pytest.mark.parametrize(
    ("values", "test", "expected"),
    [
        (pa.array([0.1, 0.2], pa.float32()), {"equals": 0.1}, [0]),
        (pa.array([0.1, 0.2], pa.float32()), {"equals": "0.1"}, [0]),
        (pa.array([0.1, 0.2], pa.float32()), {"in": [0.1, "0.2"]}, [0, 1]),
        (pa.array([0.1, 0.2], pa.float32()), {"range": {"gte": 0.1, "lt": 0.2}}, [0]),
        (pa.array([0.1, 0.2], pa.float32()), {"range": {"gt": 0.1, "lte": 0.2}}, [1]),
        (pa.array([0.0, -0.0], pa.float32()), {"equals": 0}, [0, 1]),
        (pa.array([math.inf, 1, math.nan], pa.float32()), {"equals": 1e300}, []),
        (pa.array([math.inf, 1, math.nan], pa.float32()), {"range": {"lt": 1e300}}, [1]),
        (pa.array([math.inf, 1, math.nan], pa.float32()), {"range": {"gt": 10**400}}, [0]),
        (pa.array([-math.inf, 1, math.nan], pa.float32()), {"range": {"lte": -1e300}}, [0]),
        (pa.array([-math.inf, 1, math.nan], pa.float32()), {"range": {"gte": -1e300}}, [1]),
        (pa.array([1, LARGE, 2**64 - 1], pa.uint64()), {"equals": LARGE}, [1]),
        (pa.array([1, LARGE, 2**64 - 1], pa.uint64()), {"equals": str(LARGE)}, [1]),
        (pa.array([1, LARGE, 2**64 - 1], pa.uint64()), {"in": [1, "18446744073709551615"]}, [0, 2]),
        (pa.array([1, LARGE, 2**64 - 1], pa.uint64()), {"range": {"gt": 1, "lt": "18446744073709551615"}}, [1]),
        (pa.array([1, LARGE, 2**64 - 1], pa.uint64()), {"range": {"lte": "18446744073709551616"}}, [0, 1, 2]),
        (pa.array([-128, 127], pa.int8()), {"in": ["127", -128, 128]}, [0, 1]),
        (pa.array([0, 255], pa.uint8()), {"range": {"gt": -1, "lt": 255}}, [0]),
        (pa.array([True, False]), {"in": [True]}, [0]),
        (pa.array([ONE_ID.bytes, OTHER_ID.bytes], pa.binary(16)).cast(pa.uuid()), {"equals": str(ONE_ID)}, [0]),
        (pa.array([ONE_ID.bytes, OTHER_ID.bytes], pa.binary(16)).cast(pa.uuid()), {"in": [OTHER_ID.hex.upper()]}, [1]),
        (pa.array([[1.0, 2.0], None, [2.0, 3.0]], pa.list_(pa.float32(), 2)), {"equals": 2}, [0, 2]),
        (pa.array([[1.0, 2.0], None, [2.0, 3.0]], pa.list_(pa.float32(), 2)), {"range": {"gt": 2}}, [2]),
        (pa.array([["a"], [], ["b", None]], pa.large_list(pa.string())), {"equals": "b"}, [2]),
        (pa.array([[[1], [2, None]], [], [[3]]], pa.list_(pa.list_(pa.int32()))), {"in": [2, 3]}, [0, 2]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), {"equals": "x"}, [0, 2]),
        (pa.array([PRICE, OTHER_PRICE]).dictionary_encode(), {"equals": 19.9}, [0]),
        (pa.array(["a view of a long text", "y"], pa.string_view()), {"prefix": "a view"}, [0]),
        (pa.array(["x", "y"], pa.large_string()), {"in": ["y"]}, [1]),
        (pa.nulls(2), {"equals": "x"}, []),
        (pa.nulls(2), {"range": {"gt": 1}}, []),
        (pa.nulls(2), {"prefix": "x"}, []),
        (pa.nulls(2), {"exists": False}, [0, 1]),
        (pa.array([date(2026, 1, 1), date(1960, 1, 1)]), {"equals": "2026-01-01"}, [0]),
        (pa.array([date(2026, 1, 1), date(1960, 1, 1)]), {"in": ["1960-01-01"]}, [1]),
        (pa.array([date(2026, 1, 1), date(1960, 1, 1)], pa.date64()), {"range": {"lt": "2026-01-01"}}, [1]),
        (pa.array([MOMENT], pa.timestamp("us", "Europe/Berlin")), {"equals": "2026-01-02T04:04:05.678901+01:00"}, [0]),
        (pa.array([MOMENT], pa.timestamp("us")), {"equals": "2026-01-02T03:04:05.678901Z"}, [0]),
        (pa.array([MOMENT], pa.timestamp("us")), {"range": {"gt": "2026-01-02T03:04:05.6789005"}}, [0]),
        (pa.array([0, 1], pa.timestamp("ns")), {"equals": "1970-01-01T00:00:00.000000001"}, [1]),
        (pa.array([-1, 0], pa.timestamp("s")), {"range": {"lt": "1970-01-01T00:00:00.5", "gte": "1970-01-01"}}, [1]),
        (pa.array([-1, 0], pa.timestamp("s")), {"range": {"lte": "1969-12-31T23:59:59.5"}}, [0]),
        (pa.array([time(12, 30)], pa.time32("s")), {"equals": "12:30:00"}, [0]),
        (pa.array([1001], pa.time64("ns")), {"range": {"gt": "00:00:00.000001"}}, [0]),
        (pa.array([timedelta(seconds=90), timedelta(0)], pa.duration("ms")), {"range": {"gte": 0.5, "lt": 100}}, [0]),
    ],
)
def test_columns_compare_in_their_own_type(values: pa.Array, test: dict[str, Any], expected: list[int]) -> None:
    assert passing(values, **test) == expected


@pytest.mark.parametrize(
    ("values", "test"),
    [
        (PRICES, {"equals": "19,90"}),
        (PRICES, {"equals": "NaN"}),
        (PRICES, {"in": [1, "Infinity"]}),
        (PRICES, {"equals": True}),
        (PRICES, {"equals": " 1"}),
        (PRICES, {"prefix": "19"}),
        (pa.array([0.5]), {"equals": "one"}),
        (pa.array([ONE_ID.bytes], pa.binary(16)).cast(pa.uuid()), {"equals": "not a UUID"}),
        (pa.array([ONE_ID.bytes], pa.binary(16)).cast(pa.uuid()), {"range": {"gt": str(ONE_ID)}}),
        (pa.array([b"x"]), {"equals": "x"}),
        (pa.array([{"a": 1}]), {"in": ["x"]}),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), {"equals": "a"}),
        (pa.array([time(1)]), {"equals": "12:30:00+01:00"}),
        (pa.array([MOMENT], pa.timestamp("us")), {"equals": "0001-01-01T00:00:00+23:00x"}),
        (pa.array([MOMENT], pa.timestamp("us")), {"equals": 5}),
    ],
)
def test_values_of_another_type_are_rejected(values: pa.Array, test: dict[str, Any]) -> None:
    with pytest.raises(FilterInvalid, match=r"filter field 'x' holds .*; (value|prefix|range) .* can't be compared"):
        passing(values, **test)


def test_a_long_value_is_shortened_in_the_error() -> None:
    with pytest.raises(FilterInvalid) as caught:
        passing(PRICES, equals="nineteen euros " * 10_000)
    assert len(str(caught.value)) < 400


COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "Café"), unicodedata.normalize("NFD", "Café")


@pytest.mark.parametrize("asked", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.list_(pa.string())])
def test_texts_compare_in_composed_form(asked: str, kind: pa.DataType) -> None:
    texts: list[Any] = [COMPOSED, "Cafe", DECOMPOSED, f"{DECOMPOSED} noir", "", None]
    values = pa.array([[text] for text in texts] if pa.types.is_list(kind) else texts, kind)
    assert passing(values, equals=asked) == [0, 2]
    assert passing(values, in_=[asked, "Cafe"]) == [0, 1, 2]
    assert passing(values, prefix=asked) == [0, 2, 3]
    assert passing(values, prefix="Cafe") == [1]


def test_every_character_that_nfc_changes_is_recognised() -> None:
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    second = {
        chr(int(parts[1], 16))
        for character in characters
        if len(parts := unicodedata.decomposition(character).split()) == 2 and not parts[0].startswith("<")
    }
    changed = [
        c for c in characters if unicodedata.combining(c) or c in second or not unicodedata.is_normalized("NFC", c)
    ]
    assert pc.all(pc.match_substring_regex(pa.array(changed), MAYBE_NOT_NFC)).as_py()
    hangul = unicodedata.normalize("NFD", "각")
    assert all(pc.match_substring_regex(pa.array([c]), MAYBE_NOT_NFC)[0].as_py() for c in hangul[1:])


@given(st.text("aAeK\u0301\u0323\u212a\u00e9\u1100\u1161\u11a8\uac00\u0928\u093c\u0929\u2019", max_size=6))
def test_any_text_equals_its_other_forms(text: str) -> None:
    values = pa.array([text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)])
    assert passing(values, equals=text) == [0, 1, 2]
    assert passing(values, in_=[text, "other"]) == [0, 1, 2]


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def assert_agrees(values: pa.Array, exact: list[Any], asked: Any, number: Any) -> None:
    for test, compare in _COMPARE.items():
        assert passing(values, range={test: asked}) == [i for i, v in enumerate(exact) if compare(v, number)]
    expected = [i for i, v in enumerate(exact) if v == number]
    assert passing(values, equals=asked) == expected
    assert passing(values, in_=[asked]) == expected


@settings(max_examples=200, deadline=None)
@given(data=st.data(), precision=st.integers(1, 76), asked_as_text=st.booleans())
def test_decimals_agree_with_python(data: Any, precision: int, asked_as_text: bool) -> None:
    scale = data.draw(st.integers(0, precision))
    limit = 10**precision - 1
    units = data.draw(st.lists(st.integers(-limit, limit) | st.integers(-20, 20), min_size=1, max_size=6))
    exact = [Fraction(unit, 10**scale) for unit in units if abs(unit) <= limit]
    kind = (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale)
    values = pa.array([Decimal(unit).scaleb(-scale) if precision < 28 else _decimal(unit, scale) for unit in units
                       if abs(unit) <= limit], kind)  # fmt: skip
    number = data.draw(
        st.sampled_from(exact or [Fraction(0)]).map(lambda value: _decimal_text(value, scale))
        | st.decimals(allow_nan=False, allow_infinity=False).map(str)
        | st.integers(-(10**30), 10**30).map(str)
    )
    if asked_as_text:
        assert_agrees(values, exact, number, Fraction(number))
    else:
        asked = float(number)
        if math.isfinite(asked):
            assert_agrees(values, exact, asked, Fraction(repr(asked)))


def _decimal(unit: int, scale: int) -> Decimal:
    return Decimal((int(unit < 0), tuple(map(int, str(abs(unit)))), -scale))


def _decimal_text(value: Fraction, scale: int) -> str:
    return f"{int(value * 10**scale)}e-{scale}"


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), min_size=1, max_size=6),
    asked=st.integers(-(2**65), 2**65) | st.integers(-1, 9) | st.decimals(allow_nan=False, allow_infinity=False),
)
def test_large_integers_agree_with_python(values: list[int], asked: int | Decimal) -> None:
    assert_agrees(pa.array(values, pa.uint64()), [Fraction(v) for v in values], str(asked), Fraction(asked))
    for value in values:
        assert_agrees(pa.array(values, pa.uint64()), values, value, value)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=6),
    asked=st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1, 1) | st.integers(-(10**400), 10**400),
)
@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_floats_agree_with_numpy(kind: pa.DataType, values: list[float], asked: float) -> None:
    precision = kind.to_pandas_dtype()
    with np.errstate(over="ignore"):
        column = np.array(values, precision)
        for number in [asked, *(float(repr(v)) for v in values if math.isfinite(v))]:
            try:
                rounded = precision(float(number))
            except OverflowError:
                rounded = precision(math.inf if number > 0 else -math.inf)
            exact = [float(v) for v in column]
            # Beyond the largest finite value, the number itself is compared, which is less than infinity.
            against = number if np.isinf(rounded) else float(rounded)
            assert_agrees(pa.array(column), exact, number, against)
