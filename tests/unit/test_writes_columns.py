"""Metadata of writes: what fits a column, what becomes a new one, and what is refused."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from lookalike.errors import IdInvalid, MetadataInvalid
from lookalike.writes.columns import MAX_COLUMNS, WritableColumns, require_metadata
from lookalike.writes.entries import merged
from lookalike.writes.item_ids import valid_id

TYPES: dict[str, pa.DataType] = {
    "id": pa.string(),
    "text": pa.string(),
    "whole": pa.int16(),
    "large": pa.int64(),
    "number": pa.float64(),
    "short": pa.float32(),
    "price": pa.decimal128(9, 2),
    "flag": pa.bool_(),
    "day": pa.date32(),
    "moment": pa.timestamp("us", "UTC"),
    "plain_moment": pa.timestamp("s"),
    "length": pa.duration("ms"),
    "key": pa.uuid(),
    "tags": pa.list_(pa.string()),
    "box": pa.list_(pa.float32(), 4),
    "size": pa.struct([("width", pa.int32()), ("unit", pa.string())]),
    "names": pa.map_(pa.string(), pa.int32()),
    "raw": pa.binary(),
}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("text", "höhe", "höhe"),
        ("whole", 5, 5),
        ("whole", 5.0, 5),
        ("large", "9007199254740993", "9007199254740993"),
        ("number", 5, 5.0),
        ("short", 0.1, 0.1),
        ("price", 12.5, "12.50"),
        ("price", "12.50", "12.50"),
        ("flag", False, False),
        ("day", "2026-12-03", "2026-12-03"),
        ("moment", "2026-12-03T10:00:00+01:00", "2026-12-03T09:00:00+00:00"),
        ("plain_moment", "2026-12-03T10:00:00", "2026-12-03T10:00:00"),
        ("length", 1.5, 1.5),
        ("key", "12345678-1234-5678-1234-567812345678", "12345678-1234-5678-1234-567812345678"),
        ("tags", ["a", "b"], ["a", "b"]),
        ("tags", [], []),
        ("box", [0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0]),
        ("size", {"width": 3}, {"width": 3, "unit": None}),
        ("names", [["a", 1]], [["a", 1]]),
    ],
)
def test_value_that_fits_its_column(name: str, value: Any, shown: Any) -> None:
    columns = WritableColumns(TYPES, {})
    typed = columns.typed({name: value})
    assert not typed.new
    pa.array([typed.values[name]], TYPES[name])
    assert columns.json_ready(typed.values) == {name: shown}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", 5),
        ("whole", 70_000),
        ("whole", 5.5),
        ("whole", True),
        ("whole", "5.5"),
        ("number", "5"),
        ("number", True),
        ("price", 12.555),
        ("price", "much"),
        ("flag", 1),
        ("day", "03.12.2026"),
        ("day", 5),
        ("moment", "noon"),
        ("key", "12345"),
        ("tags", "a"),
        ("tags", [1]),
        ("box", [0, 0, 1]),
        ("size", {"height": 3}),
        ("size", [3]),
        ("names", {"a": 1}),
        ("raw", "AAAA"),
    ],
)
def test_value_of_another_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(MetadataInvalid, match=rf"metadata\.{name} is .*, but the column holds "):
        WritableColumns(TYPES, {}).typed({name: value})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a", pa.string()),
        (5, pa.int64()),
        (5.5, pa.float64()),
        (True, pa.bool_()),
        ([1, 2.5], pa.list_(pa.float64())),
        ({"a": 1, "b": None}, pa.struct([("a", pa.int64())])),
    ],
)
def test_first_value_decides_the_type_of_a_new_column(value: Any, kind: pa.DataType) -> None:
    assert WritableColumns(TYPES, {}).typed({"new": value}).new == {"new": kind}


@pytest.mark.parametrize("value", [None, [], {}, [None], {"a": []}])
def test_value_without_a_type_creates_no_column(value: Any) -> None:
    typed = WritableColumns(TYPES, {}).typed({"new": value})
    assert (typed.values, typed.new) == ({}, {})


def test_column_that_a_write_created_is_widened_to_decimals() -> None:
    columns = WritableColumns({**TYPES, "stock": pa.int64()}, {"price_now": pa.int64()})
    columns.add(columns.typed({"price_now": 5.5}))
    assert columns.types["price_now"] == columns.new["price_now"] == pa.float64()
    with pytest.raises(MetadataInvalid):
        columns.typed({"stock": 5.5})  # the sources made this one


def test_columns_are_bounded() -> None:
    columns = WritableColumns({"id": pa.string()}, {})
    columns.add(columns.typed({f"c{number}": 1 for number in range(MAX_COLUMNS - 1)}))
    columns.typed({"c0": 2})
    with pytest.raises(MetadataInvalid, match=f"up to {MAX_COLUMNS}"):
        columns.typed({"one more": 1})


def test_metadata_of_64_kib_and_5_levels_is_accepted() -> None:
    require_metadata({"text": "x" * (64 * 1024 - len('{"text": ""}'))})
    require_metadata({"a": {"b": {"c": {"d": {"e": 1}}}}})


@pytest.mark.parametrize(
    "metadata",
    [
        {"text": "x" * 64 * 1024},
        {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}},
        {"a": [[[[[1]]]]]},
        {"id": "x"},
        {"": 1},
        {"_x": 1},
        {"a\nb": 1},
        {"x" * 200: 1},
        {"text": "\ud800"},
    ],
)
def test_metadata_that_no_item_can_have(metadata: dict[str, Any]) -> None:
    with pytest.raises(MetadataInvalid):
        require_metadata(metadata)


def test_values_are_those_of_python() -> None:
    columns = WritableColumns(TYPES, {})
    typed = columns.typed({"day": "2026-12-03", "length": 2, "price": 3})
    assert typed.values == {"day": date(2026, 12, 3), "length": timedelta(seconds=2), "price": Decimal("3")}


def test_merge_patches_of_rfc_7396() -> None:
    cases = [  # appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]
    for original, patch, result in cases:
        assert merged(original, patch) == result


@pytest.mark.parametrize("text", ["a", "shoes/red 1.jpg", "é", "x" * 1_024, "a.b/..c", "thumbnail/a", "%2F?#"])
def test_ids_that_items_can_have(text: str) -> None:
    assert valid_id(text) == text


def test_id_is_composed() -> None:
    assert valid_id("e\u0301") == "\u00e9"


@pytest.mark.parametrize(
    "text",
    ["", "x" * 1_025, "é" * 513, "a\nb", "a\x00", "\x7f", "a/thumbnail", "a//b", "/a", "a/", "a/./b", "..", "\ud800"],
)
def test_ids_that_no_new_item_can_have(text: str) -> None:
    with pytest.raises(IdInvalid):
        valid_id(text)


def test_numbers_that_lose_digits_are_refused() -> None:
    large = 2**53 + 1
    columns = WritableColumns({"id": pa.string(), "price": pa.float64()}, {"ean": pa.int64(), "gtin": pa.int64()})
    with pytest.raises(MetadataInvalid, match="would lose digits"):
        columns.typed({"price": large})
    columns.add(columns.typed({"ean": large}))
    with pytest.raises(MetadataInvalid, match="holds integer"):
        columns.typed({"ean": 0.5})
    assert columns.typed({"ean": large}).values == {"ean": large}
    of_version = WritableColumns({"gtin": pa.int64()}, {"gtin": pa.int64()}, has_large=lambda name: name == "gtin")
    with pytest.raises(MetadataInvalid, match="holds integer"):
        of_version.typed({"gtin": 0.5})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"size": {"width": "wide"}}, 'its width is "wide", not integer'),
        ({"size": {"width": 1.5}}, "its width is 1.5, not integer"),
        ({"size": {"height": 3}}, "record of width (integer), unit (text): it has no field 'height'"),
        ({"tags": ["a", 1]}, "an element is 1, not text"),
        ({"new": 2**63}, "metadata.new is 9223372036854775808: "),
        ({"new": [1, "a"]}, "the elements of a list must have one type"),
    ],
)
def test_messages_name_the_part_that_does_not_fit(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(MetadataInvalid) as caught:
        WritableColumns(TYPES, {}).typed(metadata)
    assert message in str(caught.value)
