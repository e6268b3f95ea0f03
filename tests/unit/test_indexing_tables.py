"""Parquet tables through the indexing job: every column type, several tables, and columns that are no metadata."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.index import summary_text
from indexing.job import IndexSettings, IndexSummary, run_index
from lookalike.collection import Collection, open_collection
from lookalike.errors import SourceError
from lookalike.filters import filter_mask, parse_filter
from lookalike.metadata import PARQUET_FILE, ROWS_FILE
from lookalike.sources.item import ColumnNames
from lookalike.sources.registry import open_sources
from tests.bad_images import encoded, make_image

ROWS = 3
IMAGES = [encoded(make_image(seed=i), "JPEG") for i in range(ROWS)]
LARGE = 2**63 + 5
ONE_ID = UUID("2f1c0f4e-0d5c-4c1e-9a52-0a6d4bd1d001")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def write_table(path: Path, columns: Mapping[str, Any], metadata: dict[bytes, bytes] | None = None) -> Path:
    """Write a table of three images and the columns."""
    table = pa.table({"id": [f"{path.stem}-{i}" for i in range(ROWS)], "image": IMAGES, **columns})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def index(out: Path, *sources: Path) -> IndexSummary:
    return run_index(IndexSettings(tuple(map(str, sources)), out, encoder="fake"))


def indexed(tmp_path: Path, *sources: Path) -> Collection:
    index(tmp_path / "out", *sources)
    return open_collection(tmp_path / "out")


def passing(collection: Collection, field: str, **test: Any) -> list[int]:
    condition = {"field": field, **{name.rstrip("_"): value for name, value in test.items()}}
    return [
        int(i)
        for i in np.flatnonzero(filter_mask(parse_filter(json.dumps({"must": [condition]})), collection.metadata))
    ]


def of(kind: pa.DataType, *values: Any) -> pa.Array:
    return pa.array(values, kind)


CASES: dict[str, tuple[pa.Array, pa.DataType | None, list[Any], dict[str, Any]]] = {
    # name: the column, its type in the collection if another, the values in JSON, a test that the first row passes
    "float16": (pa.array(np.array([0.1, 2, 3], np.float16)), None, [0.1, 2.0, 3.0], {"equals": 0.1}),
    "float32": (of(pa.float32(), 0.5, math.nan, None), None, [0.5, None, None], {"equals": 0.5}),
    "int8": (of(pa.int8(), -128, 127, None), None, [-128, 127, None], {"equals": -128}),
    "uint8": (of(pa.uint8(), 255, 0, None), None, [255, 0, None], {"range": {"gt": 254}}),
    "uint64": (of(pa.uint64(), LARGE, 1, None), None, [str(LARGE), "1", None], {"equals": str(LARGE)}),
    "int64": (of(pa.int64(), -(2**60), 1, None), None, [str(-(2**60)), "1", None], {"equals": -(2**60)}),
    "small": (of(pa.int64(), 7, 1, None), None, [7, 1, None], {"equals": "7"}),
    "uuid": (
        of(pa.uuid(), ONE_ID, UUID(int=1), None),
        None,
        [str(ONE_ID), str(UUID(int=1)), None],
        {"equals": str(ONE_ID)},
    ),
    "decimal128": (
        of(pa.decimal128(10, 2), Decimal("19.90"), Decimal("0.10"), None),
        None,
        ["19.90", "0.10", None],
        {"equals": 19.9},
    ),
    "decimal256": (
        of(pa.decimal256(60, 2), Decimal("1e40"), Decimal(0), None),
        None,
        [f"1{40 * '0'}.00", "0.00", None],
        {"range": {"gte": "1e40"}},
    ),
    "decimal32": (
        of(pa.decimal32(5, 1), Decimal("1.5"), Decimal(0), None),
        pa.decimal128(5, 1),
        ["1.5", "0.0", None],
        {"equals": "1.50"},
    ),
    "fixed_list": (
        of(pa.list_(pa.float32(), 2), [1, 2], [3, 4], None),
        None,
        [[1.0, 2.0], [3.0, 4.0], None],
        {"equals": 2},
    ),
    "embedding": (
        of(pa.list_(pa.float32(), 512), [0.5] * 512, [1.0] * 512, None),
        None,
        [[0.5] * 512, [1.0] * 512, None],
        {"range": {"lt": 0.6}},
    ),
    "large_string": (of(pa.large_string(), "a", "b", None), None, ["a", "b", None], {"equals": "a"}),
    "string_view": (
        of(pa.string_view(), "a long view of text", "b", None),
        pa.string(),
        ["a long view of text", "b", None],
        {"prefix": "a"},
    ),
    "binary_view": (
        of(pa.binary_view(), b"ab", b"", None),
        pa.binary(),
        ["<2 bytes>", "<0 bytes>", None],
        {"exists": True},
    ),
    "hash": (
        of(pa.binary(8), b"12345678", b"BM345678", None),
        None,
        ["<8 bytes>", "<8 bytes>", None],
        {"exists": True},
    ),
    "dictionary": (pa.array(["x", "y", None]).dictionary_encode(), pa.string(), ["x", "y", None], {"equals": "x"}),
    "numbers": (of(pa.int16(), 5, 6, None).dictionary_encode(), pa.int16(), [5, 6, None], {"equals": 5}),
    "moment": (
        of(pa.timestamp("us", "Europe/Berlin"), MOMENT, None, None),
        None,
        ["2026-01-02T04:04:05.678901+01:00", None, None],
        {"equals": MOMENT.isoformat()},
    ),
    "milliseconds": (
        of(pa.timestamp("ms"), 1500, None, None),
        None,
        ["1970-01-01T00:00:01.500000", None, None],
        {"range": {"gt": "1970-01-01"}},
    ),
    "day": (of(pa.date32(), date(2026, 1, 2), None, None), None, ["2026-01-02", None, None], {"equals": "2026-01-02"}),
    "clock": (of(pa.time64("us"), time(12, 30), None, None), None, ["12:30:00", None, None], {"equals": "12:30"}),
    "length": (of(pa.duration("ms"), timedelta(seconds=1.5), None, None), None, [1.5, None, None], {"equals": 1.5}),
    "record": (
        pa.array(
            [{"iso": 1, "lens": "x", "big": LARGE}, {"iso": 2, "lens": None, "big": 1}, None],
            pa.struct([("iso", pa.int16()), ("lens", pa.string_view()), ("big", pa.uint64())]),
        ),
        pa.struct([("iso", pa.int16()), ("lens", pa.string()), ("big", pa.uint64())]),
        [{"iso": 1, "lens": "x", "big": str(LARGE)}, {"iso": 2, "lens": None, "big": "1"}, None],
        {"exists": True},
    ),
    "nested": (
        of(pa.list_(pa.list_(pa.int32())), [[1], [2, None]], [], None),
        None,
        [[[1], [2, None]], [], None],
        {"equals": 2},
    ),
    "map": (of(pa.map_(pa.string(), pa.int32()), [("a", 1)], [], None), None, [[["a", 1]], [], None], {"exists": True}),
    "records": (
        of(pa.list_(pa.struct([("a", pa.int8())])), [{"a": 1}], [], None),
        None,
        [[{"a": 1}], [], None],
        {"exists": True},
    ),
    "truth": (of(pa.bool_(), True, False, None), None, [True, False, None], {"equals": True}),
    "nothing": (pa.nulls(ROWS), None, [None] * ROWS, {}),
    "inner_nothing": (
        of(pa.struct([("path", pa.null())]), {"path": None}, {"path": None}, None),
        None,
        [{"path": None}] * 2 + [None],
        {},
    ),
    "json": (of(pa.json_(), '{"a": 1}', "[]", None), pa.string(), ['{"a": 1}', "[]", None], {"prefix": "{"}),
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("tables")
    return indexed(folder, write_table(folder / "t.parquet", {name: case[0] for name, case in CASES.items()}))


@pytest.mark.parametrize("name", CASES)
class TestColumnTypes:
    def test_type_is_carried_into_both_files(self, everything: Collection, name: str) -> None:
        column, stored, _, _ = CASES[name]
        with pa.memory_map(str(everything.folder / ROWS_FILE)) as file:
            rows = pa.ipc.open_file(file).schema
        for schema in (pq.read_schema(everything.folder / PARQUET_FILE), rows):
            found = schema.field(name).type
            assert found == (stored or column.type)

    def test_values_are_kept(self, everything: Collection, name: str) -> None:
        column = CASES[name][0]
        found = pq.read_table(everything.folder / PARQUET_FILE).column(name).to_pylist()
        assert repr(found) == repr(column.to_pylist())  # NaN is not equal to itself

    def test_values_in_json(self, everything: Collection, name: str) -> None:
        records = everything.metadata.records(range(ROWS), [name])
        assert [record.get(name) for record in json.loads(json.dumps(records))] == CASES[name][2]

    def test_filter_finds_the_first_row(self, everything: Collection, name: str) -> None:
        column, _, _, test = CASES[name]
        if test:
            assert 0 in passing(everything, name, **test)
        assert passing(everything, name, exists=False) == [i for i in range(ROWS) if column[i].as_py() is None]


def test_pandas_reads_every_type(everything: Collection) -> None:
    frame = pd.read_parquet(everything.folder / PARQUET_FILE)
    assert len(frame) == ROWS
    assert set(CASES) <= set(frame.columns)
    assert frame["uint64"][0] == LARGE


def test_types_of_two_tables_are_unified(tmp_path: Path) -> None:
    first = {
        "same": of(pa.float32(), 0.5, 1, 2),
        "number": of(pa.int64(), 2**53 + 1, 1, 2),
        "integer": of(pa.int8(), -1, 1, 2),
        "sign": of(pa.uint64(), LARGE, 1, 2),
        "money": of(pa.decimal128(5, 2), Decimal("1.25"), 1, 2),
        "mixed": of(pa.int64(), 5, 6, 7),
        "when": of(pa.date32(), date(2026, 1, 2), None, None),
        "moment": of(pa.timestamp("s", "UTC"), 0, 1, 2),
        "empty": pa.nulls(ROWS),
        "only": of(pa.uint8(), 1, 2, 3),
        "inner": of(pa.list_(pa.int64()), [1], [], None),
    }
    second = {
        "same": of(pa.float32(), 3, 4, 5),
        "number": of(pa.float32(), 0.5, 1, 2),
        "integer": of(pa.uint16(), 65535, 1, 2),
        "sign": of(pa.int64(), -5, 1, 2),
        "money": of(pa.int32(), 7, 8, 9),
        "mixed": of(pa.string(), "x", "y", "z"),
        "when": of(pa.string(), "soon", None, None),
        "moment": of(pa.timestamp("ms", "Europe/Berlin"), 500, 1, 2),
        "empty": of(pa.int16(), 7, 8, 9),
        "inner": of(pa.list_(pa.uint64()), [LARGE], [], None),
    }
    sources = [write_table(tmp_path / f"{name}.parquet", columns) for name, columns in (("a", first), ("b", second))]
    table = pq.read_table(indexed(tmp_path, *sources).folder / PARQUET_FILE)
    types = {field.name: str(field.type) for field in table.schema}
    assert {name: types[name] for name in first} == {
        "same": "float",
        "number": "double",
        "integer": "int32",
        "sign": "decimal128(20, 0)",
        "money": "decimal128(12, 2)",
        "mixed": "string",
        "when": "string",
        "moment": "timestamp[ms, tz=UTC]",
        "empty": "int16",
        "only": "uint8",
        "inner": "list<element: decimal128(20, 0)>",
    }
    rows = table.to_pylist()
    assert [rows[i]["mixed"] for i in (0, 3)] == ["5", "x"]
    assert [rows[i]["when"] for i in (0, 3)] == ["2026-01-02", "soon"]
    assert [rows[i]["sign"] for i in (0, 3)] == [LARGE, -5]
    assert [rows[i]["inner"] for i in (0, 3)] == [[1], [LARGE]]
    assert [rows[i]["only"] for i in (0, 3)] == [1, None]


def test_a_changed_type_alone_makes_a_version(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.parquet", {"n": of(pa.int32(), 1, 2, 3)})
    index(tmp_path / "out", source)
    assert index(tmp_path / "out", source).unchanged
    write_table(source, {"n": of(pa.int64(), 1, 2, 3)})
    index(tmp_path / "out", source)
    assert open_collection(tmp_path / "out").metadata.column("n").type == pa.int64()


class TestColumnsThatAreNoMetadata:
    @pytest.mark.parametrize(
        ("values", "what"),
        [
            (IMAGES, "images"),
            ([{"bytes": image, "path": None} for image in IMAGES], "images"),
            ([{"bytes": image, "path": "a.jpg"} for image in IMAGES], "images"),
            ([None, None, {"bytes": IMAGES[0], "path": None}], "images"),
            ([[image, image] for image in IMAGES], "images"),
            ([{"bytes": b"RIFFno image", "path": "a.wav"}] * ROWS, "files"),
            ([base64.b64encode(image).decode() for image in IMAGES], "images as base64 text"),
            ([bytes(5_000)] * ROWS, "binary values of up to 5,000 bytes"),
        ],
    )
    def test_they_are_left_out_and_reported(self, tmp_path: Path, values: list[Any], what: str) -> None:
        source = write_table(tmp_path / "t.parquet", {"mask": values, "n": [1, 2, 3]})
        summary = index(tmp_path / "out", source)
        assert summary.left_out_columns == {"mask": what}
        assert "mask" in summary_text(summary)
        records = open_collection(tmp_path / "out").metadata.records(range(ROWS))
        assert [record["n"] for record in records] == [1, 2, 3]
        assert "mask" not in records[0]
        assert len(json.dumps(records)) < 1_000

    def test_short_binary_values_are_kept(self, tmp_path: Path) -> None:
        source = write_table(tmp_path / "t.parquet", {"sha256": [b"BM" + bytes(30)] * ROWS})
        assert index(tmp_path / "out", source).left_out_columns == {}
        assert open_collection(tmp_path / "out").metadata.records([0])[0]["sha256"] == "<32 bytes>"


def features(**columns: Any) -> dict[bytes, bytes]:
    return {b"huggingface": json.dumps({"info": {"features": columns}}).encode()}


LABEL = {"_type": "ClassLabel", "names": ["cat", "dog"]}


class TestClassNames:
    @pytest.mark.parametrize(
        ("feature", "values", "expected"),
        [
            (LABEL, [1, 0, None], ["dog", "cat", None]),
            (LABEL, [1, -1, 2], ["dog", None, None]),
            ({"_type": "Sequence", "feature": LABEL}, [[0, 1], [], None], [["cat", "dog"], [], None]),
            ({"_type": "List", "feature": LABEL}, [[0], [1], [-1]], [["cat"], ["dog"], [None]]),
            ([LABEL], [[0, 1], [1], [0]], [["cat", "dog"], ["dog"], ["cat"]]),
            (
                {"a": LABEL, "b": {"_type": "Value"}},
                [{"a": 0, "b": 5}, None, {"a": 1, "b": 6}],
                [{"a": "cat", "b": 5}, None, {"a": "dog", "b": 6}],
            ),
            (
                {"_type": "Sequence", "feature": {"a": LABEL}},
                [{"a": [0, 1]}, {"a": []}, None],
                [{"a": ["cat", "dog"]}, {"a": []}, None],
            ),
            ([{"a": LABEL}], [[{"a": 0}], [], None], [[{"a": "cat"}], [], None]),
        ],
    )
    def test_numbers_become_names(self, tmp_path: Path, feature: Any, values: Any, expected: Any) -> None:
        source = write_table(tmp_path / "t.parquet", {"label": values}, features(label=feature))
        records = indexed(tmp_path, source).metadata.records(range(ROWS))
        assert [record.get("label") for record in records] == expected

    def test_names_are_used_in_filters(self, tmp_path: Path) -> None:
        source = write_table(tmp_path / "t.parquet", {"label": [1, 0, 1]}, features(label=LABEL))
        assert passing(indexed(tmp_path, source), "label", equals="dog") == [0, 2]

    @pytest.mark.parametrize(
        "metadata",
        [
            {b"huggingface": b"{"},
            {b"huggingface": b"[]"},
            features(label={"_type": "ClassLabel", "num_classes": 2}),
            features(label="ClassLabel"),
            features(other=LABEL),
        ],
    )
    def test_other_descriptions_are_ignored(self, tmp_path: Path, metadata: dict[bytes, bytes]) -> None:
        source = write_table(tmp_path / "t.parquet", {"label": [1, 0, 1]}, metadata)
        assert indexed(tmp_path, source).metadata.records([0])[0]["label"] == 1


TEXTS = [base64.b64encode(image).decode() for image in IMAGES]


class TestChoiceOfTheImageColumn:
    @pytest.mark.parametrize(
        ("columns", "option", "message"),
        [
            ({"image": TEXTS}, None, "column 'image' holds images as base64 text"),
            ({"photo": TEXTS, "file_name": ["a.jpg"] * 3}, None, "column 'photo' holds images as base64 text"),
            ({"photo": TEXTS}, None, "column 'photo' holds images as base64 text"),
            ({"photo": TEXTS}, "photo", "column 'photo' holds images as base64 text"),
            ({"image": [text.encode() for text in TEXTS]}, None, "column 'image' holds images as base64 text"),
            ({"image": [f"data:image/jpeg;base64,{text}" for text in TEXTS]}, None, "images as base64 text"),
            ({"image": [None, None, TEXTS[0]]}, None, "column 'image' holds images as base64 text"),
            ({"image": ["https://example.com/a.jpg"] * 3}, None, "column 'image' holds URLs: .*img2dataset"),
            ({"url": ["s3://bucket/a.jpg"] * 3}, None, "column 'url' holds URLs"),
            ({"image": [{"bytes": None, "path": "https://example.com/a.jpg"}] * 3}, None, "column 'image' holds URLs"),
            ({"images": [IMAGES[:2]] * 3}, None, "column 'images' holds lists of images: .*one image a row"),
            ({"images": [[{"bytes": IMAGES[0], "path": None}]] * 3}, None, "column 'images' holds lists of images"),
            ({"image": [["a.jpg"]] * 3}, "image", "column 'image' holds lists"),
            ({"n": [1, 2, 3]}, "n", "column 'n' holds int64"),
            ({"front": IMAGES, "back": IMAGES}, None, "2 columns hold images; .*--image-column front or --"),
            ({"n": [1, 2, 3]}, None, "no column of image bytes or paths; name it with --image-column"),
            ({"c" * 30 + str(i): [1, 2, 3] for i in range(900)}, None, "and 89[0-9] more$"),
        ],
    )
    def test_unusable_columns_are_explained(
        self, tmp_path: Path, columns: dict[str, list[Any]], option: str | None, message: str
    ) -> None:
        pq.write_table(pa.table({"id": list("abc"), **columns}), tmp_path / "t.parquet")
        with pytest.raises(SourceError, match=message) as caught:
            open_sources([str(tmp_path / "t.parquet")], ColumnNames(image=option))
        assert "--image-column" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize(
        ("columns", "chosen"),
        [
            ({"phash": [b"12345678"] * 3, "photo": IMAGES}, "photo"),
            ({"data": [b"12345678"] * 3, "photo": IMAGES}, "photo"),
            ({"photo": IMAGES, "jpg": IMAGES}, "jpg"),
            ({"photo": [None, None, IMAGES[0]], "hash": [b"x"] * 3}, "photo"),
            ({"hash": [b"12345678"] * 3, "file_name": ["t.parquet"] * 3}, "file_name"),
            ({"image": ["https://example.com/a.jpg"] * 3, "file_name": ["a.jpg"] * 3}, "file_name"),
            ({"image": [{"bytes": None, "path": "a.jpg"}] * 3, "thumb": IMAGES}, "image"),
            ({"photo": pa.array(IMAGES, pa.binary_view())}, "photo"),
            ({"photo": pa.array(IMAGES).dictionary_encode()}, "photo"),
        ],
    )
    def test_content_decides(self, tmp_path: Path, columns: dict[str, Any], chosen: str) -> None:
        pq.write_table(pa.table({"id": list("abc"), **columns}), tmp_path / "t.parquet")
        (source,) = open_sources([str(tmp_path / "t.parquet")])
        assert source._columns.image == chosen  # type: ignore[attr-defined]

    def test_columns_of_one_name_are_kept(self, tmp_path: Path) -> None:
        table = pa.Table.from_arrays([pa.array(IMAGES), pa.array([1, 2, 3]), pa.array([4, 5, 6])], ["image", "n", "n"])
        pq.write_table(table, tmp_path / "t.parquet")
        records = indexed(tmp_path, tmp_path / "t.parquet").metadata.records(range(ROWS))
        assert [(record["n"], record["n_2"]) for record in records] == [(1, 4), (2, 5), (3, 6)]
