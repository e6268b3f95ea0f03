"""The parts of the indexing job, each alone."""

from __future__ import annotations

import doctest
import errno
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexing import metadata_tables as tables_module
from indexing import progress as progress_module
from indexing.build.npy_writer import NpyWriter
from indexing.id_set import _MAX_RECENT, IdSet
from indexing.ingest.prefetch import prefetch
from indexing.ingest.shards import EncodedRow, ShardPool, ShardWriter, shard_files
from indexing.metadata_tables import common_schema, conform, table_from_records
from indexing.progress import Progress
from indexing.row_stream import ENCODED_SCHEMA, vectors_of
from indexing.work_folder import exclusive
from lookalike.collection import staging_folder
from lookalike.disk_errors import translated_disk_errors
from lookalike.errors import CollectionBusy, CollectionUnwritable, DiskFull


@pytest.mark.parametrize("module", [tables_module, progress_module])
def test_the_examples_in_the_docstrings_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


class TestIdSet:
    def test_it_agrees_with_a_set_across_its_runs(self) -> None:
        rng = random.Random(0)
        values = [rng.randrange(200_000) * 0x9E3779B97F4A7C15 % 2**64 for _ in range(3 * _MAX_RECENT)]
        ours, truth = IdSet(), set()
        for value in values:
            assert ours.add(value) == (value not in truth)
            truth.add(value)

    def test_the_largest_hash_fits(self) -> None:
        ours = IdSet()
        assert ours.add(2**64 - 1)
        assert not ours.add(2**64 - 1)


class TestPrefetch:
    def test_order_is_kept(self) -> None:
        assert list(prefetch(range(1000), 3)) == list(range(1000))

    def test_it_stays_within_its_bound(self) -> None:
        started: list[int] = []
        blocked = threading.Event()

        def numbers() -> Iterator[int]:
            for i in range(100):
                started.append(i)
                if i == 5:
                    blocked.set()
                yield i

        with closing(prefetch(numbers(), 4)) as ahead:
            assert next(ahead) == 0
            assert blocked.wait(10)  # 4 in the queue, one in the hand
            assert max(started) <= 6

    def test_an_exception_reaches_the_consumer_in_its_place(self) -> None:
        def failing() -> Iterator[int]:
            yield 1
            raise ValueError("broken")

        ahead = prefetch(failing(), 2)
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="broken"):
            next(ahead)

    def test_closing_early_ends_the_thread_and_the_source(self) -> None:
        closed = threading.Event()

        def endless() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                closed.set()

        before = threading.active_count()
        with closing(prefetch(endless(), 2)) as ahead:
            next(ahead)
        assert closed.is_set()
        assert threading.active_count() == before


class TestNpyWriter:
    @pytest.mark.parametrize("shape", [(), (3,)])
    def test_numpy_reads_what_was_appended(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        pieces = [np.arange(n * 3, dtype=np.float16).reshape(n, 3)[:, :3] for n in (0, 2, 5)]
        pieces = [piece if shape else np.ascontiguousarray(piece[:, 0]) for piece in pieces]
        with NpyWriter(tmp_path / "x.npy", np.dtype(np.float16), shape) as writer:
            for piece in pieces:
                writer.append(piece)
        found = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, np.concatenate(pieces))

    def test_an_empty_file_is_one(self, tmp_path: Path) -> None:
        NpyWriter(tmp_path / "x.npy", np.dtype(np.uint64), ()).close()
        assert np.load(tmp_path / "x.npy").shape == (0,)

    def test_another_type_is_refused(self, tmp_path: Path) -> None:
        writer = NpyWriter(tmp_path / "x.npy", np.dtype(np.float16), (2,))
        with writer, pytest.raises(ValueError, match="does not fit"):
            writer.append(np.zeros((1, 2), np.float32))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "1", "\ud800", "ü"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=5,
)


chunks_of_json = st.lists(st.dictionaries(st.sampled_from("abc"), json_values), min_size=1, max_size=4)


class TestTables:
    def test_types_that_agree_are_kept(self) -> None:
        now = datetime(2026, 1, 2, tzinfo=UTC)
        records = [{"n": 1, "x": 0.5, "s": "a", "t": now, "d": Decimal("1.5"), "l": [1], "b": True}, {}]
        table = table_from_records(records)
        assert conform(table, common_schema([table.schema])).to_pylist()[0] == records[0]

    def test_types_that_differ_become_text(self) -> None:
        tables = [
            table_from_records([{"a": 1, "b": 1}]),
            table_from_records([{"a": "x", "b": 1.5}]),
            table_from_records([{"a": [1], "c": None}]),
        ]
        schema = common_schema(table.schema for table in tables)
        rows = [conform(table, schema).to_pylist()[0] for table in tables]
        assert [row["a"] for row in rows] == ["1", "x", "[1]"]
        assert [row["b"] for row in rows] == [1.0, 1.5, None]
        assert schema.field("c").type == pa.string()

    def test_one_chunk_of_mixed_values_becomes_text(self) -> None:
        table = table_from_records([{"a": 1}, {"a": "x"}, {"a": {"k": [None]}}, {"a": None}])
        assert table.column("a").to_pylist() == ["1", "x", '{"k": [null]}', None]

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(chunks_of_json, min_size=1, max_size=4))
    def test_any_json_can_be_stored(self, chunks: list[list[dict[str, Any]]]) -> None:
        tables = [table_from_records([{"id": "i", **record} for record in chunk]) for chunk in chunks]
        schema = common_schema(table.schema for table in tables)
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, schema) as writer:
            for table, chunk in zip(tables, chunks, strict=True):
                whole = conform(table, schema)
                assert len(whole) == len(chunk)
                writer.write_table(whole)


def encoded_row(i: int, fingerprint: int = 7) -> EncodedRow:
    return EncodedRow(i, fingerprint, np.full(4, i, np.float16).tobytes(), b"thumbnail", 10 + i, 20, "JPEG")


class TestShards:
    def test_rows_are_found_again_by_identity_in_the_order_asked_for(self, tmp_path: Path) -> None:
        with ShardWriter(tmp_path, seconds=0) as writer:
            for i in range(5):
                writer.add([encoded_row(i), EncodedRow(100 + i, 1, code="image_undecodable", message="no")])
        assert len(shard_files(tmp_path)) == 5
        pool = ShardPool(tmp_path)
        rows = pool.find(np.array([3, 0, 102, 3], np.uint64), np.array([7, 7, 1, 8], np.uint64))
        assert rows[3] == -1  # another fingerprint
        found = pool.take(rows[:3])
        assert found.schema == ENCODED_SCHEMA
        assert found.column("id_hash").to_pylist() == [3, 0, 102]
        assert found.column("code").to_pylist() == [None, None, "image_undecodable"]
        np.testing.assert_array_equal(vectors_of(found.slice(0, 2), 4), [[3] * 4, [0] * 4])

    def test_of_two_rows_for_an_image_the_encoded_one_counts(self, tmp_path: Path) -> None:
        failed = EncodedRow(3, 7, code="source_invalid", message="the disk was away")
        for row in (failed, encoded_row(3), failed):
            with ShardWriter(tmp_path) as writer:
                writer.add([row, EncodedRow(4, 7, code="image_undecodable", message="no")])
        wanted = np.array([3, 4], np.uint64), np.array([7, 7], np.uint64)
        pool = ShardPool(tmp_path)
        assert pool.take(pool.find(*wanted)).column("code").to_pylist() == [None, "image_undecodable"]
        assert (ShardPool(tmp_path, rejected=False).find(*wanted) >= 0).tolist() == [True, False]

    def test_an_empty_folder_holds_nothing(self, tmp_path: Path) -> None:
        pool = ShardPool(tmp_path)
        assert pool.find(np.array([1], np.uint64), np.array([1], np.uint64)).tolist() == [-1]
        assert len(pool.take(np.empty(0, np.int64))) == 0

    def test_a_later_writer_adds_to_what_is_there_and_unfinished_files_do_not_count(self, tmp_path: Path) -> None:
        for i in range(2):
            with ShardWriter(tmp_path) as writer:
                writer.add([encoded_row(i)])
        (tmp_path / ".encoded-00000002.arrow.part").write_bytes(b"half")
        assert len(ShardPool(tmp_path)) == 2


class TestDisk:
    def test_two_jobs_do_not_write_to_one_collection(self, tmp_path: Path) -> None:
        root = tmp_path / "collection"
        with exclusive(root):
            script = f"import pathlib, indexing.work_folder as d\nwith d.exclusive(pathlib.Path({str(root)!r})): pass"
            other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
            assert f"CollectionBusy: process {os.getpid()} is writing" in other.stderr
            with pytest.raises(CollectionBusy), exclusive(root):
                pass
        with exclusive(root):
            pass

    def test_a_folder_of_other_things_is_not_taken_for_a_collection(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("x")
        with pytest.raises(CollectionUnwritable, match=r"thesis\.tex"), exclusive(tmp_path):
            pass
        with pytest.raises(CollectionUnwritable, match="is a file"), exclusive(tmp_path / "thesis.tex"):
            pass
        with (
            pytest.raises(CollectionUnwritable, match="can't be written to"),
            exclusive(tmp_path / "thesis.tex" / "collection"),
        ):
            pass

    def test_what_a_killed_job_left_of_current_is_no_stranger(self, tmp_path: Path) -> None:
        (tmp_path / ".CURRENT.1b87b56d").write_text("2024")
        with exclusive(tmp_path):
            staging_folder(tmp_path, "1")
        assert not list(tmp_path.glob(".CURRENT.*"))

    def test_a_file_that_may_not_grow_says_so(self, tmp_path: Path) -> None:
        with (
            pytest.raises(DiskFull, match=r"may not grow.*ulimit -f.*: it is lost"),
            translated_disk_errors(tmp_path, "it is lost"),
        ):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk_has_its_own_error(self, tmp_path: Path, number: int) -> None:
        with pytest.raises(DiskFull, match="same command again"), translated_disk_errors(tmp_path):
            raise OSError(number, os.strerror(number))

    def test_other_errors_of_the_system_pass(self, tmp_path: Path) -> None:
        with pytest.raises(PermissionError), translated_disk_errors(tmp_path):
            raise PermissionError(errno.EACCES, "no")


class TestProgress:
    def test_counts_and_lines(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress_module, "_LOG_INTERVAL_SECONDS", 0.0)
        with Progress() as shown:
            shown.begin(100)
            shown.add(encoded=4)
            shown.add(encoded=6, rejected=2, reused=3)
        assert (shown.done, shown.encoded, shown.rejected) == (15, 10, 2)
        line = capsys.readouterr().err
        assert "15 of about 100 images" in line
        assert "2 rejected" in line
        assert "left" in line

    def test_an_unknown_total_is_no_obstacle(self, capsys: pytest.CaptureFixture[str]) -> None:
        with Progress(quiet=True) as shown:
            shown.begin(None)
            shown.add(encoded=1)
        assert capsys.readouterr().err == ""
