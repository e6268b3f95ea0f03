"""The writer of a collection: order, durability, groups, and what it refuses."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.bootstrap import open_searcher
from lookalike.collection import open_collection
from lookalike.errors import (
    CollectionBusy,
    CollectionUnwritable,
    DiskFull,
    LookalikeError,
    MetadataInvalid,
    PendingFull,
    UnknownItem,
    WritesDamaged,
)
from lookalike.filters import parse_filter
from lookalike.search import Searcher
from lookalike.types import Float32
from lookalike.writes.log import HEAD_FILE, LOG_FILE, WriteLog
from lookalike.writes.operations import Delete, Patch, Put, Written
from lookalike.writes.writer import Writer
from tests.api.small_collection import ITEMS, build_collection


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_collection(tmp_path / "photographs")


@pytest.fixture
def searcher(root: Path) -> Searcher:
    return open_searcher(open_collection(root))


@pytest.fixture
def writer(searcher: Searcher) -> Iterator[Writer]:
    with Writer(searcher.collection) as opened:
        yield opened


def vector(searcher: Searcher, text: str) -> Float32:
    return searcher.encode_texts([text], _stopwatch())[0]


def _stopwatch() -> Any:
    from lookalike.stopwatch import Stopwatch

    return Stopwatch()


def written(outcomes: list[Any]) -> list[str]:
    return [each.result if isinstance(each, Written) else each.code for each in outcomes]


def test_operations_of_a_group_see_those_before_them(writer: Writer, searcher: Searcher) -> None:
    red = vector(searcher, "red")
    outcomes = writer.apply(
        [
            Put("new", red, {"n": 1}),
            Patch("new", {"n": 2, "m": "x"}),
            Patch("new", {"m": None}),
            Delete("cup"),
            Patch("cup", {"n": 3}),
            Put("cup", red, {"n": 4}),
            Delete("cup"),
            Delete("cup"),
        ]
    )
    assert written(outcomes) == [
        "created",
        "patched",
        "patched",
        "deleted",
        "unknown_item",
        "created",
        "deleted",
        "unknown_item",
    ]
    metadata = writer.view.metadata
    assert metadata.records([metadata.row_of("new")]) == [{"id": "new", "n": 2}]
    with pytest.raises(UnknownItem):
        metadata.row_of("cup")
    assert len(writer.view) == len(ITEMS)


def test_view_stays_as_it_was(writer: Writer, searcher: Searcher) -> None:
    writer.apply([Put("new", vector(searcher, "red"), {"n": 1})])
    before = searcher.over(writer.view)
    writer.apply(
        [Put("new", vector(searcher, "green"), {"n": 2}), Delete("left.png"), Put("x", vector(searcher, "red"))]
    )
    assert len(before.collection) == len(ITEMS) + 1
    assert before.search_text("red").hits[0].metadata == {"n": 1}
    assert before.search_item("left.png").hits[0].id == "left.png"
    after = searcher.over(writer.view)
    assert after.search_text("green").hits[0].metadata == {"n": 2}
    assert [hit.id for hit in after.search_text("red").hits].count("new") == 1


def test_search_equals_one_over_all_items(writer: Writer, searcher: Searcher) -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((300, searcher.store.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    writer.apply([Put(f"item {number}", each, {"n": number}) for number, each in enumerate(vectors)])
    writer.apply([Delete(f"item {number}") for number in range(0, 300, 7)])
    live = searcher.over(writer.view)
    query = vectors[7] + vectors[8]
    query /= np.linalg.norm(query)
    found = live.search_vectors(query[None], _options(limit=50), _stopwatch())[0].hits
    stored = live.collection.stored_vectors[np.flatnonzero(writer.view.live)].astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    np.testing.assert_allclose([hit.score for hit in found], np.sort(stored @ query)[::-1][:50], atol=1e-6)
    condition = parse_filter(json.dumps({"must": [{"field": "n", "range": {"gte": 100}}]}))
    assert live.table.count(condition) == sum(number % 7 != 0 for number in range(100, 300))


def _options(**options: Any) -> Any:
    from lookalike.row_search import SearchOptions

    return SearchOptions(**options)


def test_writes_are_read_again(root: Path, searcher: Searcher) -> None:
    red = vector(searcher, "red")
    with Writer(searcher.collection) as first:
        first.apply([Put("new", red, {"tags": ["a"]}, {"width": 3}, b"thumbnail", b"0" * 16), Delete("cup")])
        first.apply([Patch("left.png", {"caption": "wheels"}), Patch("new", {"n": 1})])
        expected = first.view
    with Writer(open_collection(root)) as second:
        assert second.last == first.last
        assert (second.pending, len(second.view)) == (3, len(expected))
        for item_id in ("new", "left.png", "right.png"):
            rows = [each.metadata.row_of(item_id) for each in (expected, second.view)]
            records = [each.metadata.records([row]) for each, row in zip((expected, second.view), rows, strict=True)]
            assert records[0] == records[1]
        row = second.view.metadata.row_of("new")
        assert second.view.thumbnails.get(row) == b"thumbnail"
        np.testing.assert_array_equal(second.view.stored_vectors[[row]][0], red.astype(np.float16))


def test_failed_commit_changes_nothing(writer: Writer, searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(log: WriteLog) -> None:
        raise DiskFull("the disk is full")

    red, before = vector(searcher, "red"), writer.view
    with monkeypatch.context() as patch:
        patch.setattr(WriteLog, "_commit", full)
        with pytest.raises(DiskFull):
            writer.apply([Put("new", red), Delete("cup")])
    assert len(writer.view) == len(before) == len(ITEMS)
    assert written(writer.apply([Put("new", red), Delete("cup")])) == ["created", "deleted"]


def test_item_replaced_a_thousand_times_takes_the_place_of_one(root: Path, searcher: Searcher) -> None:
    red = vector(searcher, "red")
    with Writer(searcher.collection) as writer:
        for number in range(3_000):
            writer.apply([Put("one", red, {"n": number}, thumbnail=b"x" * 1_000)])
        assert writer.pending == 1
        assert len(writer.view.delta) <= 1_100
        assert searcher.over(writer.view).search_text("red").hits[0].metadata == {"n": 2_999}
    assert (root / LOG_FILE).stat().st_size < 200_000


def test_pending_writes_are_bounded_but_deletions_are_not(searcher: Searcher) -> None:
    red = vector(searcher, "red")
    with Writer(searcher.collection, max_pending=2) as writer:
        outcomes = writer.apply(
            [Put("a", red), Patch("cup", {"n": 1}), Put("b", red), Put("a", red), Delete("left.png")]
        )
        assert written(outcomes) == ["created", "patched", "pending_full", "replaced", "deleted"]
        assert isinstance(writer.apply([Patch("right.png", {"n": 1})])[0], PendingFull)
        assert written(writer.apply([Delete("a"), Put("c", red)])) == ["deleted", "created"]


def test_closed_writer_writes_nothing(root: Path, searcher: Searcher) -> None:
    writer = Writer(searcher.collection)
    writer.close()
    with pytest.raises(CollectionUnwritable, match="try again"):
        writer.apply([Delete("cup")])
    with Writer(open_collection(root)) as again:
        assert again.last == 0


def test_second_writer_is_refused(writer: Writer, root: Path) -> None:
    with pytest.raises(CollectionBusy, match="one writer at a time"):
        Writer(open_collection(root))


def test_lock_is_released_with_the_process(root: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from lookalike.collection import open_collection; "
        "from lookalike.writes.writer import Writer; from lookalike.writes.operations import Delete; "
        "w = Writer(open_collection(Path(sys.argv[1]))); w.apply([Delete('cup')]); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(root)], check=False).returncode == -9
    with Writer(open_collection(root)) as writer:
        assert (writer.last, writer.pending) == (1, 1)


def test_threads_share_a_writer(writer: Writer, searcher: Searcher) -> None:
    red = vector(searcher, "red")
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: writer.apply([Put(f"{n % 20}", red, {"n": n})])[0], range(200)))
    assert not [each for each in outcomes if isinstance(each, LookalikeError)]
    assert (len(writer.view), writer.last) == (len(ITEMS) + 20, 200)


def test_refused_value_leaves_no_column(writer: Writer, searcher: Searcher) -> None:
    outcome = writer.apply([Put("new", vector(searcher, "red"), {"fine": 1, "caption": 5})])[0]
    assert isinstance(outcome, MetadataInvalid)
    assert "fine" not in writer.view.metadata.columns


def test_binary_and_other_columns_of_a_patched_item_stay(writer: Writer) -> None:
    before = writer.view.metadata.records([writer.view.metadata.row_of("left.png")])[0]
    writer.apply([Patch("left.png", {"stock": 3})])
    after = writer.view.metadata.records([writer.view.metadata.row_of("left.png")])[0]
    assert after == {**before, "stock": 3}


def test_delete_by_filter(writer: Writer, searcher: Searcher) -> None:
    red = vector(searcher, "red")
    writer.apply([Put(f"{number}", red, {"n": number}) for number in range(10)])
    condition = parse_filter(json.dumps({"must": [{"field": "n", "range": {"lt": 4}}]}))
    assert [writer.delete_matching(condition) for _ in range(2)] == [4, 0]
    assert len(writer.view) == len(ITEMS) + 6


@pytest.fixture
def damaged(root: Path, searcher: Searcher) -> Path:
    """A collection whose writer was killed, so that its write-ahead log is there."""
    script = (
        "import os, sys; from pathlib import Path; from lookalike.collection import open_collection; "
        "from lookalike.writes.writer import Writer; from lookalike.writes.operations import Delete, Patch\n"
        "w = Writer(open_collection(Path(sys.argv[1])))\n"
        "for n in range(5): w.apply([Patch('left.png', {'n': n, 'text': 'secret' * 100})])\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(root)], check=False)
    return root


def test_intact_log_of_a_killed_writer_opens(damaged: Path) -> None:
    with Writer(open_collection(damaged)) as writer:
        assert writer.last == 5


@pytest.mark.parametrize("position", [0.05, 0.5, 0.98])
def test_corrupted_write_ahead_log_is_refused(damaged: Path, position: float) -> None:
    wal = damaged / f"{LOG_FILE}-wal"
    data = bytearray(wal.read_bytes())
    data[int(position * len(data))] ^= 0xFF
    wal.write_bytes(data)
    with pytest.raises(WritesDamaged):
        Writer(open_collection(damaged))


def test_lost_write_ahead_log_is_refused(damaged: Path) -> None:
    (damaged / f"{LOG_FILE}-wal").unlink()
    with pytest.raises(WritesDamaged, match="write 5 was acknowledged"):
        Writer(open_collection(damaged))
    (damaged / HEAD_FILE).unlink()  # the user accepts the loss
    with Writer(open_collection(damaged)) as writer:
        assert writer.pending == 0


def test_changed_row_is_refused(damaged: Path) -> None:
    with Writer(open_collection(damaged)):
        pass  # the log is in the database now
    with sqlite3.connect(damaged / LOG_FILE) as connection:
        connection.execute("UPDATE item SET metadata = replace(metadata, 'secret', 'SECRET')")
    connection.close()
    with pytest.raises(WritesDamaged, match="differs from its checksum"):
        Writer(open_collection(damaged))


def test_file_that_is_no_database_is_refused(root: Path) -> None:
    (root / LOG_FILE).write_bytes(b"no database" * 1_000)
    with pytest.raises(WritesDamaged):
        Writer(open_collection(root))


def test_version_that_lacks_released_writes_is_refused(root: Path, searcher: Searcher) -> None:
    with Writer(searcher.collection) as writer:
        writer.apply([Put("new", vector(searcher, "red"))])
    with WriteLog(root) as log:
        log.release(1)
    with pytest.raises(WritesDamaged, match="restore"):
        Writer(open_collection(root))


def test_large_numbers_keep_their_digits(root: Path, searcher: Searcher) -> None:
    large = 2**53 + 1
    with Writer(searcher.collection) as writer:
        outcomes = writer.apply([Patch("cup", {"ean": large}), Patch("left.png", {"ean": 0.5})])
        assert written(outcomes) == ["patched", "metadata_invalid"]
        assert written(writer.apply([Patch("left.png", {"ean": 0.5})])) == ["metadata_invalid"]
        searcher.over(writer.view).table.facets(names=["ean"])
    with Writer(open_collection(root)) as again:
        assert written(again.apply([Patch("left.png", {"ean": 0.5}), Patch("cup", {"ean": 5})])) == [
            "metadata_invalid",
            "patched",
        ]


def test_true_is_not_one(writer: Writer) -> None:
    writer.apply([Patch("cup", {"whole": 1, "flag": True})])
    outcomes = writer.apply([Patch("cup", {"whole": True}), Patch("cup", {"flag": 1}), Patch("cup", {"whole": 1})])
    assert written(outcomes) == ["metadata_invalid", "metadata_invalid", "patched"]


def test_patched_item_keeps_its_place_and_others_are_last(writer: Writer, searcher: Searcher) -> None:
    red = vector(searcher, "red")
    writer.apply([Put("new", red), Patch("space/rocket.jpg", {"n": 1}), Put("cup", red), Patch("new", {"n": 2})])
    live = searcher.over(writer.view)

    def ids(sort: str | None = None) -> list[str]:
        return [record["id"] for record in live.collection.metadata.records(list(live.table.rows(sort=sort)), ["id"])]

    stored = [each for each in ITEMS if each != "cup"]
    assert ids() == [*stored, "cup", "new"]
    assert ids("n") == ["space/rocket.jpg", "new", *[each for each in stored if each != "space/rocket.jpg"], "cup"]


def test_patches_do_not_grow_metadata_beyond_its_limit(writer: Writer) -> None:
    outcomes = writer.apply([Patch("cup", {f"text {n}": "x" * 30_000}) for n in range(3)])
    assert written(outcomes) == ["patched", "patched", "metadata_invalid"]
    assert written(writer.apply([Patch("cup", {"text 0": "short"})])) == ["patched"]
