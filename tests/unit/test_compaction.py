"""`lookalike compact`: the version that it builds shows what the writes showed, and no kill loses anything."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from indexing import compaction
from indexing.build.budget import IndexBudget
from indexing.compaction import run_compact
from indexing.row_stream import CONTENT_HASHES, FINGERPRINTS
from lookalike.collection import REJECTED, VERSIONS, Collection, current_version, open_collection
from lookalike.errors import (
    ChecksumMismatch,
    CollectionBusy,
    CollectionNotFound,
    CollectionUnwritable,
    SourceError,
    WritesDamaged,
)
from lookalike.manifest import MANIFEST_FILE, Manifest, read_manifest
from lookalike.writes.log import LOG_FILE, WriteLog
from lookalike.writes.operations import Delete, Patch
from tests.api.small_collection import build_collection
from tests.conftest import REPOSITORY
from tests.e2e.commands import invoke, invoke_json
from tests.unit.test_indexing_tables import CASES
from tests.unit.written_collections import (
    apply,
    index,
    opened_writer,
    put,
    random_operations,
    seen,
    write_images,
    write_rows,
)

COUNT = 12
IDS = [f"{i}.jpg" for i in range(COUNT)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("sources") / "images", COUNT)


@pytest.fixture(scope="module")
def indexed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collections") / "indexed"
    index(root, images)
    return root


@pytest.fixture
def root(indexed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(indexed, tmp_path / "collection"))


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    for name, value in first.items():
        assert second[name] == value, name


# What is compacted is what was seen


@pytest.mark.parametrize("seed", range(12))
def test_random_writes_look_the_same_when_compacted(root: Path, seed: int) -> None:
    rng = random.Random(seed)
    before = seen(open_collection(root))
    for _ in range(4):
        with opened_writer(root) as writer:
            assert_same(before, seen(writer.view))  # it goes on where the one before ended
            for _ in range(rng.randrange(1, 5)):
                writer.apply(random_operations(rng, IDS, rng.randrange(1, 12)))
            before = seen(writer.view)
            if rng.random() < 0.3:
                continue
            run_compact(root)
            compacted = open_collection(root)
            assert_same(before, seen(compacted))
            assert compacted.manifest.writes == writer.last
            writer.rebase(compacted)
            writer.release()
            assert writer.pending == 0
            assert_same(before, seen(writer.view))


@pytest.mark.parametrize("name", CASES)
def test_values_of_a_patched_item_are_kept(tmp_path: Path, name: str) -> None:
    table = write_rows(tmp_path / "table.parquet", {"value": CASES[name][0]})
    index(tmp_path / "out", table)
    before = seen(open_collection(tmp_path / "out"))
    with opened_writer(tmp_path / "out") as writer:
        apply(writer, Patch("0", {"more": 1}), put("own", 3))
        live = seen(writer.view)
        assert {k: v for k, v in live["records"]["0"].items() if k != "more"} == before["records"]["0"]
        run_compact(tmp_path / "out")
        assert_same(live, seen(open_collection(tmp_path / "out")))


@pytest.mark.parametrize("kind", ["hnsw-sq8", "ivf-flat", "exact"])
def test_collection_keeps_its_store_and_recall(root: Path, images: Path, kind: str) -> None:
    index(root, images, store=kind, budget=IndexBudget(recall=0.9))
    before = open_collection(root).manifest
    with opened_writer(root) as writer:
        apply(writer, put("new", 1), Delete("3.jpg"))
        run_compact(root)
        after = open_collection(root).manifest
        assert (after.store.kind, after.store.params["asked"]) == (before.store.kind, kind)
        assert after.recall["target"] == 0.9
        assert (after.recall["text"] is None) == (kind == "exact")
        assert_same(seen(writer.view), seen(open_collection(root)))


def test_choice_of_an_index_is_kept(root: Path, images: Path) -> None:
    index(root, images, budget=IndexBudget(explain=True))
    plan = open_collection(root).manifest.recall["plan"]
    with opened_writer(root) as writer:
        apply(writer, put("new", 1))
    run_compact(root)
    after = open_collection(root).manifest
    assert after.recall["plan"] == plan
    assert after.store.params["asked"] == "auto"


def test_collection_of_an_earlier_release_is_compacted(tmp_path: Path) -> None:
    root = build_collection(tmp_path / "small")
    with opened_writer(root) as writer:
        apply(writer, put("new", 1, caption="new"), Patch("cup", {"caption": "coins"}), Delete("left.png"))
        run_compact(root)
        assert_same(seen_without_groups(writer.view), seen_without_groups(open_collection(root)))


def seen_without_groups(collection: Any) -> dict[str, Any]:
    records = collection.metadata.records([int(row) for row in range(len(collection.stored_vectors))])
    return {"records": {r["id"]: r for r in records if collection.metadata.find(r["id"]) is not None}}


# Summary, manifest and files


def test_summary_counts_the_writes(root: Path) -> None:
    with opened_writer(root) as writer:
        apply(writer, put("a", 1), put("b", 2), put("0.jpg", 3), Patch("1.jpg", {"price": 7}), Patch("a", {"price": 1}))
        apply(writer, Delete("b"), Delete("2.jpg"), Delete("3.jpg"))
    summary = run_compact(root)
    assert (summary.added, summary.replaced, summary.changed, summary.deleted) == (1, 1, 1, 2)
    assert (summary.items, summary.unchanged, summary.store) == (COUNT - 1, False, "exact")
    assert summary.version == current_version(root)


def test_manifest_keeps_sources_and_counts(root: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "more" / "notes.md").write_text("nothing")
    index(root, images, tmp_path / "more")
    before = open_collection(root)
    with opened_writer(root) as writer:
        apply(writer, put("new", 1), put("newer", 2), Delete("3.jpg"))
    run_compact(root)
    after = open_collection(root)
    assert (after.manifest.sources, after.manifest.inputs) == (before.manifest.sources, before.manifest.inputs)
    assert pq.read_table(after.folder / REJECTED) == pq.read_table(before.folder / REJECTED)
    counts = after.manifest.counts
    assert (counts.indexed, counts.rejected, counts.skipped) == (COUNT + 1, 1, 1)
    assert counts.seen == counts.indexed + counts.rejected + counts.skipped
    assert after.manifest.encoder == before.manifest.encoder


def test_fingerprints_and_content_hashes_stay_with_their_items(root: Path) -> None:
    before = open_collection(root)
    with opened_writer(root) as writer:
        apply(writer, put("new", 5), Delete("3.jpg"), Patch("4.jpg", {"price": 1}))
    run_compact(root)
    after = open_collection(root)
    for name in (FINGERPRINTS, CONTENT_HASHES):
        old, new = np.load(before.folder / name), np.load(after.folder / name)
        for item_id in ("2.jpg", "4.jpg", "11.jpg"):
            rows = before.metadata.row_of(item_id), after.metadata.row_of(item_id)
            assert (old[rows[0]] == new[rows[1]]).all()
    assert np.load(after.folder / CONTENT_HASHES)[after.metadata.row_of("new")].tobytes() == (5).to_bytes(16, "big")


def test_nothing_pending_writes_nothing(root: Path) -> None:
    version = current_version(root)
    assert run_compact(root).unchanged
    opened_writer(root).close()
    assert run_compact(root).unchanged
    assert current_version(root) == version
    done = invoke("compact", root)
    assert done.stdout.startswith("nothing pending: 12 items in ")


def test_command_prints_summary(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []
    monkeypatch.setattr("os.nice", levels.append)
    with opened_writer(root) as writer:
        apply(writer, put("new", 1), Delete("3.jpg"))
    done = invoke("compact", root)
    assert "  1 added, 0 replaced, 0 changed, 1 deleted; " in done.stdout
    assert levels == [10]
    with opened_writer(root) as writer:
        apply(writer, put("newer", 1))
    assert invoke_json("compact", root)["added"] == 1


# Beside a service


def test_writes_during_compaction_stay_pending(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = opened_writer(root)
    apply(writer, put("new", 1), Patch("4.jpg", {"price": 3}), Delete("5.jpg"))
    build = compaction.build_version

    def build_slowly(*arguments: Any) -> Manifest:
        apply(writer, put("later", 2), Patch("new", {"price": 9}), put("5.jpg", 3), Delete("6.jpg"))
        manifest = build(*arguments)
        apply(writer, Patch("4.jpg", {"colour": "late"}), Delete("later"))
        return manifest

    monkeypatch.setattr(compaction, "build_version", build_slowly)
    summary = run_compact(root)
    assert summary.writes == 3
    assert (summary.added, summary.deleted) == (1, 1)
    before = seen(writer.view)
    writer.rebase(open_collection(root))
    assert_same(before, seen(writer.view))
    writer.release()
    assert writer.pending == 5
    writer.close()
    monkeypatch.undo()
    with opened_writer(root) as writer:
        assert_same(before, seen(writer.view))
        run_compact(root)
        assert_same(before, seen(open_collection(root)))


def test_space_of_held_writes_is_freed_unless_a_service_writes(root: Path) -> None:
    with opened_writer(root) as writer:
        apply(writer, put("new", 1))
        run_compact(root)
    with WriteLog(root) as log:
        assert log.released() == 0
    assert run_compact(root).unchanged
    with WriteLog(root) as log:
        assert log.released() == 1
        assert log.find("new") is not None


def test_second_job_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened_writer(root) as writer:
        apply(writer, put("new", 1))

    def build(*arguments: Any) -> None:
        with pytest.raises(CollectionBusy):
            run_compact(root)
        raise SourceError("stop")

    monkeypatch.setattr(compaction, "build_version", build)
    with pytest.raises(SourceError, match="stop"):
        run_compact(root)


# What is refused


def test_version_needs_an_item(root: Path) -> None:
    with opened_writer(root) as writer:
        apply(writer, *map(Delete, IDS))
        version = current_version(root)
        with pytest.raises(SourceError, match=r"all items of .* are deleted, and a version needs one"):
            run_compact(root)
        assert [current_version(root)] == [path.name for path in (root / VERSIONS).iterdir()] == [version]
        apply(writer, put("new", 1))
        assert run_compact(root).items == 1


def test_missing_collection_is_an_error_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(CollectionNotFound):
        run_compact(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_damage_is_found_before_anything_is_written(root: Path) -> None:
    with opened_writer(root) as writer:
        apply(writer, put("new", 1))
    run_compact(root)
    (root / LOG_FILE).rename(root / "away")
    with pytest.raises(WritesDamaged, match="is missing"):
        run_compact(root)
    (root / "away").rename(root / LOG_FILE)
    file = root / VERSIONS / current_version(root) / "vectors.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ChecksumMismatch):
        run_compact(root)


def test_milvus_is_refused(root: Path) -> None:
    with opened_writer(root) as writer:
        apply(writer, put("new", 1))
    folder = root / VERSIONS / current_version(root)
    manifest = read_manifest(folder)
    store = manifest.store.model_copy(update={"kind": "milvus"})
    (folder / MANIFEST_FILE).write_text(manifest.model_copy(update={"store": store}).model_dump_json())
    with pytest.raises(CollectionUnwritable, match="Milvus"):
        run_compact(root)


# Killed


FORKS = """
import os, sys
from pathlib import Path

import pandas  # by the first `pa.array`
from indexing.compaction import run_compact

for line in sys.stdin:
    child = os.fork()
    if not child:
        run_compact(Path(line.rstrip()))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""
"""Compacts the folders that it reads, each in a process that has imported everything; prints the process's id."""


def test_killed_compactions_lose_nothing(root: Path) -> None:
    rng = random.Random(0)
    with opened_writer(root) as writer:
        writer.apply(random_operations(rng, IDS, 60))
        apply(writer, *(put(f"many-{i}", i, price=i) for i in range(2_500)))
        expected = len(writer.view)
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=PIPE, stdout=PIPE, text=True) as forks:
        begun = time.monotonic()
        run(forks, shutil.copytree(root, root.with_name("timed")))
        duration = time.monotonic() - begun
        for _ in range(10):
            run(forks, root, kill_after=rng.uniform(0, 1.2) * duration)
            with opened_writer(root) as writer:
                assert len(writer.view) == expected
                apply(writer, Patch("many-7", {"price": rng.randrange(100)}))
                before = seven(writer.view), expected
    run_compact(root)
    after = open_collection(root)
    assert (seven(after), len(after)) == before
    assert [path.name for path in (root / VERSIONS).iterdir() if path.name.startswith(".")] == []
    assert run_compact(root).unchanged


def run(forks: subprocess.Popen[str], root: Path, kill_after: float | None = None) -> None:
    assert forks.stdin is not None
    assert forks.stdout is not None
    forks.stdin.write(f"{root}\n")
    forks.stdin.flush()
    child = int(forks.stdout.readline())
    if kill_after is not None:
        time.sleep(kill_after)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    assert forks.stdout.readline() == "ended\n"


def seven(collection: Collection) -> list[dict[str, Any]]:
    return collection.metadata.records([collection.metadata.row_of("many-7")])
