"""`lookalike snapshot` and `restore`: a consistent copy while a service writes, and the way back, killed or not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from indexing import snapshot as snapshot_module
from indexing.compaction import run_compact
from indexing.snapshot import restore, take_snapshot
from lookalike.collection import CURRENT, VERSIONS, current_version, open_collection
from lookalike.collection_map import MAP_FILE
from lookalike.errors import (
    ChecksumMismatch,
    CollectionBusy,
    CollectionNotFound,
    CollectionUnwritable,
    ManifestInvalid,
    SourceError,
    WritesDamaged,
)
from lookalike.writes.log import HEAD_FILE, LOG_FILE, WriteLog
from lookalike.writes.operations import Delete, Patch
from tests.conftest import REPOSITORY
from tests.e2e.commands import invoke, invoke_json
from tests.permissions import refused
from tests.unit.written_collections import apply, index, opened_writer, put, seen, write_images

COUNT = 6


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed")
    index(folder / "collection", write_images(folder / "images", COUNT))
    with opened_writer(folder / "collection") as writer:
        apply(writer, put("own", 1, price=3), Delete("2.jpg"))
    run_compact(folder / "collection")
    with opened_writer(folder / "collection") as writer:
        apply(writer, put("pending", 2, price=4), Patch("1.jpg", {"price": 5}), Delete("0.jpg"))
    (folder / "collection" / "calibration.json").write_text("{}\n")
    return folder / "collection"


@pytest.fixture
def root(indexed: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(indexed, tmp_path / "collection"))
    (copied / "calibration.json").unlink()
    return copied


def seen_in(root: Path) -> dict[str, Any]:
    with opened_writer(root) as writer:
        return seen(writer.view)


def files(root: Path) -> set[str]:
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return {name for name in names if not name.endswith(".lock")}


@pytest.mark.parametrize("link", [False, True])
def test_snapshot_is_a_collection(root: Path, tmp_path: Path, link: bool) -> None:
    before = seen_in(root)
    summary = take_snapshot(root, tmp_path / "copy", link=link)
    assert (summary.writes, summary.pending, summary.version) == (5, 3, current_version(root))
    assert seen_in(tmp_path / "copy") == before
    vectors = Path(VERSIONS, summary.version, "vectors.npy")
    assert os.path.samefile(root / vectors, tmp_path / "copy" / vectors) == link
    run_compact(tmp_path / "copy")
    assert seen_in(tmp_path / "copy")["records"] == before["records"]
    assert seen_in(root) == before


def test_snapshot_inside_its_collection_is_refused(root: Path) -> None:
    with pytest.raises(CollectionUnwritable, match="inside the collection"):
        take_snapshot(root, root / "backup")
    assert not (root / "backup").exists()


def test_restore_brings_everything_back(root: Path, tmp_path: Path) -> None:
    before = seen_in(root)
    (root / "calibration.json").write_text("{}\n")
    drawn = Path(VERSIONS, current_version(root), MAP_FILE)
    (root / drawn).write_bytes(b"a map")
    take_snapshot(root, tmp_path / "copy")
    (root / drawn).write_bytes(b"a later map")
    restore(tmp_path / "copy", root, replace=True)
    restore(tmp_path / "copy", tmp_path / "new")
    assert (root / drawn).read_bytes() == (tmp_path / "new" / drawn).read_bytes() == b"a map"
    assert (tmp_path / "new" / "calibration.json").read_text() == "{}\n"
    (tmp_path / "new" / "calibration.json").unlink()
    assert seen_in(tmp_path / "new") == before
    assert files(tmp_path / "new") | {"calibration.json"} == files(tmp_path / "copy")
    assert (tmp_path / "new" / "sources.json").read_text() == (root / "sources.json").read_text()


def test_restore_replaces_later_writes(root: Path, tmp_path: Path) -> None:
    before = seen_in(root)
    take_snapshot(root, tmp_path / "copy")
    with opened_writer(root) as writer:
        apply(writer, put("later", 3), Delete("own"))
        with pytest.raises(CollectionBusy):
            restore(tmp_path / "copy", root, replace=True)
    for _ in range(3):  # the version of the snapshot is removed
        run_compact(root)
        with opened_writer(root) as writer:
            apply(writer, put("later", 3))
    with pytest.raises(CollectionUnwritable, match="holds a collection"):
        restore(tmp_path / "copy", root)
    restore(tmp_path / "copy", root, replace=True)
    assert seen_in(root) == before
    restore(tmp_path / "copy", root, replace=True)  # the version is there already
    assert seen_in(root) == before


def test_snapshot_of_a_read_only_folder_is_restored(root: Path, tmp_path: Path) -> None:
    take_snapshot(root, tmp_path / "copy")
    before = seen_in(root)
    (tmp_path / "copy").chmod(0o555)
    try:
        with refused():
            restore(tmp_path / "copy", tmp_path / "new")
    finally:
        (tmp_path / "copy").chmod(0o755)
    assert seen_in(tmp_path / "new") == before


def test_collection_without_writes_is_copied(root: Path, tmp_path: Path) -> None:
    index(tmp_path / "plain", write_images(tmp_path / "images", 3))
    take_snapshot(tmp_path / "plain", tmp_path / "copy")
    restore(tmp_path / "copy", root, replace=True)
    assert not (root / LOG_FILE).exists()
    assert len(open_collection(root)) == 3


def test_snapshots_are_consistent_while_a_service_writes(root: Path, tmp_path: Path) -> None:
    """A service writes and compacts all the time; each snapshot holds a first part of its writes."""
    done = threading.Event()
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            with opened_writer(root) as writer:
                number = 0
                while not done.is_set():
                    for _ in range(20):
                        apply(writer, put(f"n-{number}", number))
                        number += 1
                    run_compact(root)
                    writer.rebase(open_collection(root))
                    writer.release()
        except BaseException as error:
            errors.append(error)

    service = threading.Thread(target=serve)
    service.start()
    try:
        for attempt in range(6):
            take_snapshot(root, tmp_path / f"copy-{attempt}")
    finally:
        done.set()
        service.join()
    assert errors == []
    for attempt in range(6):
        ids = seen_in(tmp_path / f"copy-{attempt}")["records"].keys()
        numbers = {int(item_id[2:]) for item_id in ids if item_id.startswith("n-")}
        assert numbers == set(range(len(numbers)))


def test_version_that_was_pruned_meanwhile_is_tried_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_log = snapshot_module._copy_log
    names: list[str] = []

    def copy_late(source: Path, folder: Path) -> None:
        names.append(current_version(root))
        if len(names) == 1:
            run_compact(root)  # releases the writes that the copied version lacks
        copy_log(source, folder)

    monkeypatch.setattr(snapshot_module, "_copy_log", copy_late)
    summary = take_snapshot(root, tmp_path / "copy")
    assert len(set(names)) == 2
    assert summary.version == current_version(root) == names[1]
    assert [path.name for path in (tmp_path / "copy" / VERSIONS).iterdir()] == [summary.version]


# Refused


def test_folder_with_files_is_refused(root: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    lost = Path(shutil.copytree(root, tmp_path / "lost"))
    (lost / CURRENT).unlink()
    for folder in (full, root, lost, full / "notes.txt"):
        with pytest.raises(CollectionUnwritable):
            take_snapshot(root, folder)
        with pytest.raises(CollectionUnwritable):
            restore(root, folder)
    assert (full / "notes.txt").read_text() == "mine"
    assert files(lost) == files(root) - {CURRENT}


def test_missing_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CollectionNotFound):
        take_snapshot(tmp_path / "none", tmp_path / "copy")
    with pytest.raises(CollectionNotFound):
        restore(tmp_path / "none", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_damaged_collection_is_not_copied(root: Path, tmp_path: Path) -> None:
    damage(root / VERSIONS / current_version(root) / "vectors.npy")
    with pytest.raises(ChecksumMismatch, match=r"vectors\.npy differs"):
        take_snapshot(root, tmp_path / "copy")
    assert files(tmp_path / "copy") == set()


@pytest.mark.parametrize("name", ["vectors.npy", "manifest.json", LOG_FILE, "lost log", "head"])
def test_damaged_snapshot_changes_nothing(root: Path, tmp_path: Path, name: str) -> None:
    take_snapshot(root, tmp_path / "copy")
    before = seen_in(root)
    if name == "lost log":
        (tmp_path / "copy" / LOG_FILE).unlink()
    elif name == "head":
        (tmp_path / "copy" / HEAD_FILE).write_text("0000000000000000099\n")
    elif name == LOG_FILE:
        (tmp_path / "copy" / LOG_FILE).write_bytes(b"nothing" * 1000)
    else:
        damage(tmp_path / "copy" / VERSIONS / current_version(root) / name)
    with pytest.raises((ChecksumMismatch, WritesDamaged, SourceError, ManifestInvalid)):
        restore(tmp_path / "copy", tmp_path / "new")
    assert not (tmp_path / "new" / CURRENT).exists()
    version = root / VERSIONS / current_version(root)
    shutil.copytree(version, tmp_path / "version")
    damage(version / "ids.npy")  # so that the version is copied
    with pytest.raises((WritesDamaged, SourceError, ChecksumMismatch, ManifestInvalid)):
        restore(tmp_path / "copy", root, replace=True)
    shutil.rmtree(version)
    shutil.copytree(tmp_path / "version", version)
    assert seen_in(root) == before


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


# Killed

KILLED = """
import os, signal, sys
from pathlib import Path
from indexing import snapshot

steps = int(sys.argv[4])

def counted(function):
    def call(*arguments, **options):
        global steps
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        steps -= 1
        return function(*arguments, **options)
    return call

snapshot.file_entry, snapshot._sync = counted(snapshot.file_entry), counted(snapshot._sync)
snapshot.exists, snapshot.publish_sealed = counted(snapshot.exists), counted(snapshot.publish_sealed)
Path.unlink, Path.replace = counted(Path.unlink), counted(Path.replace)
if sys.argv[1] == "snapshot":
    snapshot.take_snapshot(Path(sys.argv[2]), Path(sys.argv[3]))
else:
    snapshot.restore(Path(sys.argv[2]), Path(sys.argv[3]), replace=sys.argv[1] == "replace")
"""
"""Copies, and kills itself at one of the steps."""


@pytest.mark.parametrize("command", ["snapshot", "restore", "replace"])
def test_killed_copy_leaves_no_half_collection(root: Path, tmp_path: Path, command: str) -> None:
    expected = seen_in(root)
    target = tmp_path / "target"
    if command == "replace":
        index(target, write_images(tmp_path / "images", 3))
        old = seen_in(target)
    killed = 0
    for step in (0, 3, 9, 20, 30, 33, 36, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 50):
        done = run_killed(command, root, target, step)
        if done == 0:
            break
        assert done == -signal.SIGKILL
        killed += 1
        if (target / CURRENT).exists():
            found = seen_in(target)
            assert found == expected or (command == "replace" and found == old)
            if found == expected:
                break
    assert killed > 4
    if not (target / CURRENT).exists() or seen_in(target) != expected:
        assert run_killed(command, root, target, 10_000) == 0
    assert seen_in(target) == expected


def run_killed(command: str, source: Path, target: Path, step: int) -> int:
    arguments = [sys.executable, "-c", KILLED, command, str(source), str(target), str(step)]
    return subprocess.run(arguments, cwd=REPOSITORY, check=False, capture_output=True).returncode


# Commands


def test_commands_print_summaries(root: Path, tmp_path: Path) -> None:
    done = invoke("snapshot", root, tmp_path / "copy")
    assert done.stdout.startswith(f"copied {root} to {tmp_path / 'copy'}, version ")
    assert "3 items with pending writes" in done.stdout
    assert invoke_json("restore", tmp_path / "copy", tmp_path / "new")["writes"] == 5
    done = invoke("restore", tmp_path / "copy", tmp_path / "new")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "[collection_unwritable]" in done.stderr
    with WriteLog(tmp_path / "new") as log:
        assert log.last == 5
