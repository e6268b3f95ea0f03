"""Metadata, row files and thumbnails: what is written is found again, by row and by id."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike import metadata as metadata_module
from lookalike.errors import DuplicateId, ManifestInvalid, UnknownItem
from lookalike.json_values import json_ready
from lookalike.metadata import IDS_FILE, PARQUET_FILE, ROWS_FILE, Metadata, id_hash, write_metadata
from lookalike.row_file import RowFile, RowFileWriter
from lookalike.thumbnails import Thumbnails, write_thumbnails

SCHEMA = pa.schema([("id", pa.string()), ("caption", pa.string()), ("n", pa.int64())])


def table(*ids: str) -> pa.Table:
    rows = [{"id": i, "caption": f"a {i}" if n % 2 else None, "n": n} for n, i in enumerate(ids)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


class TestMetadata:
    def test_rows_and_ids_round_trip(self, tmp_path: Path) -> None:
        names = ["a/ü.jpg", "b", "", "日本.png", "a/ü.jpg "]
        assert write_metadata(tmp_path, SCHEMA, [table(*names[:2]), table(*names[2:])]) == 5
        metadata = Metadata(tmp_path)
        assert len(metadata) == 5
        assert metadata.columns == ["id", "caption", "n"]
        assert [metadata.row_of(name) for name in names] == [0, 1, 2, 3, 4]
        assert metadata.records([3, 0]) == [
            {"id": "日本.png", "caption": "a 日本.png", "n": 1},
            {"id": "a/ü.jpg", "n": 0},
        ]
        assert pq.read_table(tmp_path / PARQUET_FILE).column("id").to_pylist() == names

    @pytest.mark.parametrize("count", [0, 1, 2, 30])
    def test_records_hold_only_the_chosen_columns(self, tmp_path: Path, count: int) -> None:
        write_metadata(tmp_path, SCHEMA, [table(*map(str, range(30)))])
        records = Metadata(tmp_path).records(range(count), ["n", "caption"])
        assert records == [{"n": n, "caption": f"a {n}"} if n % 2 else {"n": n} for n in range(count)]
        assert Metadata(tmp_path).records(range(count), []) == [{}] * count

    def test_columns_are_reordered_and_cast(self, tmp_path: Path) -> None:
        number, name = pa.array([1], pa.int8()), pa.array(["x"], pa.large_string())
        odd = pa.table({"n": number, "caption": pa.nulls(1), "id": name})
        write_metadata(tmp_path, SCHEMA, [odd])
        assert Metadata(tmp_path).records([0]) == [{"id": "x", "n": 1}]

    def test_unknown_id_is_named(self, tmp_path: Path) -> None:
        write_metadata(tmp_path, SCHEMA, [table("a")])
        with pytest.raises(UnknownItem, match="'b'"):
            Metadata(tmp_path).row_of("b")
        with pytest.raises(UnknownItem, match="ud800"):
            Metadata(tmp_path).row_of("\ud800")

    def test_ids_are_found_in_either_unicode_form(self, tmp_path: Path) -> None:
        composed, decomposed = "Café.jpg", "Cafe\u0301.jpg"
        write_metadata(tmp_path, SCHEMA, [table(composed, f"old {decomposed}")])
        rows = [Metadata(tmp_path).row_of(start + name) for start in ("", "old ") for name in (composed, decomposed)]
        assert rows == [0, 0, 1, 1]

    def test_both_unicode_forms_of_older_ids_are_kept_apart(self, tmp_path: Path) -> None:
        forms = ["Café.jpg", "Cafe\u0301.jpg"]
        write_metadata(tmp_path, SCHEMA, [table(*forms)])
        assert [Metadata(tmp_path).row_of(form) for form in forms] == [0, 1]

    def test_duplicate_id_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(DuplicateId, match="'a'"):
            write_metadata(tmp_path, SCHEMA, [table("a", "b"), table("a")])

    def test_hash_collision_of_two_ids(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metadata_module, "id_hash", lambda item_id: 2**64 - 1)
        write_metadata(tmp_path, SCHEMA, [table("a", "b", "c")])
        metadata = Metadata(tmp_path)
        assert [metadata.row_of(name) for name in "abc"] == [0, 1, 2]
        with pytest.raises(UnknownItem):
            metadata.row_of("d")

    def test_empty_metadata(self, tmp_path: Path) -> None:
        assert write_metadata(tmp_path, SCHEMA, []) == 0
        assert len(Metadata(tmp_path)) == 0

    @pytest.mark.parametrize("name", [IDS_FILE, ROWS_FILE])
    def test_mismatched_files_are_rejected(self, tmp_path: Path, name: str) -> None:
        write_metadata(tmp_path, SCHEMA, [table("a")])
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ManifestInvalid):
            Metadata(tmp_path)

    def test_ids_of_another_collection_are_rejected(self, tmp_path: Path) -> None:
        write_metadata(tmp_path, SCHEMA, [table("a")])
        np.save(tmp_path / IDS_FILE, np.zeros((2, 2), np.uint64))
        with pytest.raises(ManifestInvalid, match="does not describe"):
            Metadata(tmp_path)

    @settings(deadline=None)
    @given(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), unique=True, max_size=30))
    def test_hash_is_stable_and_distinct(self, names: list[str]) -> None:
        assert len({id_hash(name) for name in names}) == len(names)
        assert all(0 <= id_hash(name) < 2**64 for name in names)

    def test_the_hash_is_part_of_the_format(self) -> None:
        assert id_hash("cats/a.jpg") == 12215193079531039402


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("inf"), None),
        (1.5, 1.5),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(minutes=1), 60.0),
        (Decimal("1.10"), "1.10"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (b"abc", "<3 bytes>"),
        ({"a": [float("nan"), (b"",)]}, {"a": [None, ["<0 bytes>"]]}),
        (True, True),
    ],
)
def test_values_are_converted_for_json(value: Any, expected: Any) -> None:
    assert json_ready(value) == expected


LARGE = 2**53 + 1


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (pa.int64(), [1, LARGE, None, -5], ["1", str(LARGE), None, "-5"]),
        (pa.int64(), [1, -LARGE], ["1", str(-LARGE)]),
        (pa.uint64(), [2**64 - 1, 0], [str(2**64 - 1), "0"]),
        (pa.int64(), [2**53, -(2**53)], [2**53, -(2**53)]),
        (pa.int32(), [1, 2], [1, 2]),
        (pa.list_(pa.uint64()), [[1, LARGE], None, []], [["1", str(LARGE)], None, []]),
        (pa.list_(pa.int64(), 2), [[1, LARGE], None], [["1", str(LARGE)], None]),
        (pa.list_(pa.list_(pa.int64())), [[[1], [LARGE, None]]], [[["1"], [str(LARGE), None]]]),
        (
            pa.struct([("a", pa.int64()), ("b", pa.int64()), ("c", pa.float64())]),
            [{"a": LARGE, "b": 1, "c": float("nan")}, None],
            [{"a": str(LARGE), "b": 1, "c": None}, None],
        ),
        (
            pa.map_(pa.string(), pa.int64()),
            [[("a", LARGE)], [("b", 1)], None],
            [[["a", str(LARGE)]], [["b", "1"]], None],
        ),
        (pa.dictionary(pa.int8(), pa.int64()), [LARGE, 1], [str(LARGE), "1"]),
        (pa.uuid(), [UUID(int=7).bytes, None], ["00000000-0000-0000-0000-000000000007", None]),
        (pa.float16(), [0.1, float("nan")], [0.1, None]),
        (pa.float32(), [0.1, None, float("inf"), 16777216.0], [0.1, None, None, 16777216.0]),
        (pa.struct([("a", pa.float32())]), [{"a": 0.1}], [{"a": 0.1}]),
        (pa.list_(pa.float32()), [[0.5]], [[0.5]]),
    ],
)
def test_columns_are_converted_for_json_by_their_type(
    tmp_path: Path, kind: Any, values: list[Any], expected: Any
) -> None:
    column = pa.array(values, pa.binary(16)).cast(kind) if kind == pa.uuid() else pa.array(values, kind)
    rows = pa.table({"id": [str(i) for i in range(len(values))], "x": column})
    write_metadata(tmp_path, rows.schema, [rows.slice(0, 1), rows.slice(1)])
    records = Metadata(tmp_path).records(range(len(values)), ["x"])
    assert [record.get("x") for record in records] == expected
    assert json.loads(json.dumps(records)) == records


def all_kinds_of_columns(count: int) -> pa.Table:
    """Every type that metadata of another tool may have, a third of the cells null."""
    moment = datetime(2026, 1, 2, 3, tzinfo=UTC)
    kinds: dict[str, tuple[pa.DataType, Any]] = {
        "text": (pa.string(), lambda i: "ü" * i),
        "long": (pa.large_string(), str),
        "view": (pa.string_view(), lambda i: f"{i} is longer than twelve bytes"),
        "bytes": (pa.binary(), lambda i: bytes([i])),
        "fixed": (pa.binary(2), lambda i: bytes([i, i])),
        "truth": (pa.bool_(), lambda i: i % 2 == 0),
        "small": (pa.int8(), lambda i: i - 20),
        "large": (pa.uint64(), lambda i: 2**64 - 1 - i),
        "real": (pa.float32(), lambda i: i / 4),
        "money": (pa.decimal128(9, 2), lambda i: Decimal(i) / 4),
        "day": (pa.date32(), lambda i: date(2026, 1, 1 + i % 28)),
        "moment": (pa.timestamp("us", "UTC"), lambda i: moment + timedelta(hours=i)),
        "length": (pa.duration("s"), lambda i: timedelta(seconds=i)),
        "class": (pa.dictionary(pa.int8(), pa.string()), lambda i: "abc"[i % 3]),
        "tags": (pa.list_(pa.string()), lambda i: [str(i)] * (i % 3)),
        "box": (pa.list_(pa.float32(), 2), lambda i: [i, i + 1]),
        "camera": (pa.struct([("name", pa.string()), ("iso", pa.int32())]), lambda i: {"name": str(i), "iso": i}),
        "pairs": (pa.map_(pa.string(), pa.int32()), lambda i: [("a", i)]),
        "nothing": (pa.null(), lambda i: None),
    }
    columns = {
        name: pa.array([make(i) if i % 3 else None for i in range(count)], kind) for name, (kind, make) in kinds.items()
    }
    return pa.table(columns)


class TestRowFile:
    @settings(deadline=None)
    @given(st.lists(st.integers(0, 7), max_size=12), st.integers(1, 5))
    def test_tables_of_any_length_make_one_file(self, lengths: list[int], size: int) -> None:
        import tempfile

        schema = pa.schema([("x", pa.int64())])
        with tempfile.TemporaryDirectory() as folder:
            path, total = Path(folder) / "x.arrow", 0
            with RowFileWriter(path, schema, size) as writer:
                for length in lengths:
                    writer.add(pa.table({"x": range(total, total + length)}, schema=schema))
                    total += length
            rows = RowFile(path)
            assert len(rows) == total
            assert [rows.value("x", i) for i in range(total)] == list(range(total))

    def test_rows_out_of_range_are_rejected(self, tmp_path: Path) -> None:
        with RowFileWriter(tmp_path / "x.arrow", pa.schema([("x", pa.int64())]), 2) as writer:
            writer.add(pa.table({"x": [1, 2, 3]}))
        rows = RowFile(tmp_path / "x.arrow")
        for row in (-1, 3):
            with pytest.raises(IndexError):
                rows.value("x", row)

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 39), max_size=60), st.sampled_from([1, 3, 16, 64]), st.booleans())
    def test_many_rows_equal_single_rows(self, requested: list[int], size: int, views: bool) -> None:
        import tempfile

        everything = all_kinds_of_columns(40)
        if not views:  # pyarrow can't take string views: with them, rows are fetched in another way
            everything = everything.drop_columns("view")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.arrow"
            with RowFileWriter(path, everything.schema, size) as writer:
                writer.add(everything)
            rows = RowFile(path)
            found = rows.rows(requested)
            assert found == [{name: rows.value(name, row) for name in rows.schema.names} for row in requested]
            assert len({id(record) for record in found}) == len(requested)  # a caller may change what it got

    def test_fetching_rows_does_not_import_pandas(self, tmp_path: Path) -> None:
        write_metadata(tmp_path, SCHEMA, [table(*map(str, range(50)))])
        code = (
            "import sys; from pathlib import Path; from lookalike.metadata import Metadata; "
            "print(len(Metadata(Path(sys.argv[1])).records(list(range(50)))), 'pandas' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert run.stdout.split() == ["50", "False"]

    @pytest.mark.parametrize("wrong", [-1, 20])
    @pytest.mark.parametrize("others", [[], list(range(20))])
    def test_many_rows_with_one_out_of_range_are_rejected(self, tmp_path: Path, wrong: int, others: list[int]) -> None:
        with RowFileWriter(tmp_path / "x.arrow", pa.schema([("x", pa.int64())]), 8) as writer:
            writer.add(pa.table({"x": range(20)}))
        with pytest.raises(IndexError, match=f"row {wrong} of 20"):
            RowFile(tmp_path / "x.arrow").rows([*others, wrong])

    def test_invalid_row_file_is_rejected(self, tmp_path: Path) -> None:
        (tmp_path / "x.arrow").write_bytes(b"ARROW1 or not")
        with pytest.raises(ManifestInvalid):
            RowFile(tmp_path / "x.arrow")


def test_thumbnails_are_found_by_row(tmp_path: Path) -> None:
    write_thumbnails(tmp_path, [pa.array([b"a", None]), pa.array([b"", b"d"], pa.large_binary())])
    thumbnails = Thumbnails(tmp_path)
    assert [thumbnails.get(row) for row in range(len(thumbnails))] == [b"a", None, b"", b"d"]
