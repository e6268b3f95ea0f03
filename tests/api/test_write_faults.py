"""Faults that a writable service survives, or for which it refuses to serve: a full disk, damaged files, bad timing."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.collections import hosted
from app.main import create_app
from app.settings import Settings
from indexing.compaction import run_compact
from lookalike.collection import VERSIONS, current_version, open_collection
from lookalike.encoders.fake import DIM
from lookalike.errors import DiskFull
from lookalike.writes.log import LOG_FILE
from lookalike.writes.operations import Put
from lookalike.writes.writer import Writer, lock_writes
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import ITEMS, build_collection
from tests.api.waiting import eventually
from tests.crash.service import Launcher
from tests.permissions import refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_collection(tmp_path / "photographs")


@contextmanager
def serving(root: Path, **settings: Any) -> Iterator[TestClient]:
    """A client of a ready service that writes to a collection."""
    with TestClient(
        create_app(Settings(collection=root, writable=True, **settings)), raise_server_exceptions=False
    ) as client:
        wait_until_ready(client)
        yield client


def embedding(seed: int) -> list[float]:
    return [float(each) for each in np.random.default_rng(seed).normal(size=DIM)]


def unit(seed: int) -> Any:
    vector = np.array(embedding(seed), np.float32)
    return vector / np.linalg.norm(vector)


def put(client: TestClient, item_id: str, seed: int = 0, **metadata: Any) -> Any:
    return client.put(f"/v1/items/{item_id}", json={"embedding": embedding(seed), "metadata": metadata})


def write(root: Path, *item_ids: str) -> None:
    """Put items without a service."""
    with Writer(open_collection(root)) as writer:
        writer.apply([Put(item_id, unit(number)) for number, item_id in enumerate(item_ids)])


def test_compaction_may_end_while_the_service_opens_the_version_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, "new", "newer")
    before, opening = current_version(root), hosted.open_writes

    async def compact_first(*arguments: Any) -> Any:
        if current_version(root) == before:
            await asyncio.to_thread(run_compact, root)
        return await opening(*arguments)

    monkeypatch.setattr(hosted, "open_writes", compact_first)
    with serving(root) as client:
        facts = client.get("/v1/collections/photographs").json()
        assert (facts["pending_writes"], facts["items"]) == (0, len(ITEMS) + 2)
        assert facts["version"] == current_version(root) != before


def test_service_waits_for_a_compaction_that_releases_the_log(root: Path) -> None:
    lock = lock_writes(root)  # as a compaction holds it without a service
    threading.Timer(1.0, lock.close).start()
    begun = time.monotonic()
    with serving(root, watch_seconds=0) as client:  # so that nothing opens it again later
        assert put(client, "new").status_code == 201
        assert time.monotonic() - begun > 0.9


@pytest.fixture
def small_disk() -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A folder on a disk of 3 MB, and a function that changes the disk: `size=8m`, or `ro`."""
    folder = Path(tempfile.mkdtemp())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("needs root's permission to mount a file system")
    try:
        yield folder, lambda option: _mount("-o", f"remount,{option}", folder)
    finally:
        _mount("--lazy", folder, command="umount")
        folder.rmdir()


def _mount(*arguments: str | Path, command: str = "mount") -> None:
    subprocess.run([command, *arguments], check=True, capture_output=True)


def test_full_disk_refuses_writes_until_there_is_space(small_disk: tuple[Path, Callable[[str], None]]) -> None:
    folder, remount = small_disk
    root = build_collection(folder / "photographs")
    with serving(root, compact_items=0) as client:
        written = 0
        while (response := put(client, f"new/{written}", written, text="x" * 5_000)).status_code == 201:
            written += 1
            assert written < 2_000
        for _ in range(3):
            assert (response.status_code, response.json()["code"]) == (507, "disk_full")
            response = put(client, "other", text="x" * 5_000)
        assert client.post("/v1/count", json={}).json()["count"] == len(ITEMS) + written
        remount("size=16m")
        assert put(client, "after").status_code == 201
    with serving(root, compact_items=0) as client:
        found = {each["id"] for each in client.get("/v1/items", params={"limit": 1_000}).json()["items"]}
        assert found == {*ITEMS, *(f"new/{number}" for number in range(written)), "after"}


def test_compaction_on_a_full_disk_leaves_the_collection(small_disk: tuple[Path, Callable[[str], None]]) -> None:
    folder, remount = small_disk
    root = build_collection(folder / "photographs")
    write(root, "new", "newer")
    before = current_version(root)
    (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - 20_000))
    with pytest.raises(DiskFull):
        run_compact(root)
    assert current_version(root) == before
    remount("size=16m")
    with serving(root, compact_items=0) as client:
        assert client.get("/v1/collections/photographs").json()["pending_writes"] == 2
        assert run_compact(root).items == len(ITEMS) + 2


def test_folder_that_can_not_be_written_to_is_refused(root: Path) -> None:
    with refused(root, mode=0o500):
        application = create_app(Settings(collection=root, writable=True))
        with TestClient(application, raise_server_exceptions=False) as client:
            eventually(lambda: "could not be opened" in client.get("/readyz").text)
            assert "collection_unwritable" in client.get("/readyz").text


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed", "database"])
def test_damaged_log_is_not_served(root: Path, tmp_path: Path, damage: str) -> None:
    killed = tmp_path / "killed" / root.name
    with Writer(open_collection(root)) as writer:
        for number in range(5):
            writer.apply([Put(f"new/{number}", unit(number))])
        shutil.copytree(root, killed)  # what a process that is killed leaves
    wal, database = killed / f"{LOG_FILE}-wal", killed / LOG_FILE
    if damage == "removed":
        wal.unlink()
    elif damage == "truncated":
        wal.write_bytes(wal.read_bytes()[:-100])
    elif damage == "flipped":
        content = bytearray(wal.read_bytes())
        content[-2_000] ^= 4
        wal.write_bytes(content)
    else:
        Writer(open_collection(killed)).close()  # moves the writes into the database
        content = bytearray(database.read_bytes())
        content[content.index(b"new/3")] ^= 4
        database.write_bytes(content)
    application = create_app(Settings(collection=killed, writable=True))
    with TestClient(application, raise_server_exceptions=False) as client:
        eventually(lambda: "could not be opened" in client.get("/readyz").text)
        assert "[writes_damaged]" in client.get("/readyz").text
        for response in (client.get("/v1/items/cup"), client.post("/v1/search/text", json={"text": "a cat"})):
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert put(client, "new").status_code == 503


def test_item_replaced_thousands_of_times_takes_the_room_of_one(root: Path) -> None:
    with Writer(open_collection(root)) as writer:
        thumbnail = bytes(5_000)
        for number in range(3_000):
            writer.apply([Put("shoe", unit(number), {"price": number}, thumbnail=thumbnail)])
            assert writer.view.slots <= 1_100
        assert (writer.pending, len(writer.view)) == (1, len(ITEMS) + 1)
        assert sum(file.stat().st_size for file in root.glob("writes.*")) < 8_000_000
    with serving(root, compact_items=0) as client:
        query = {"query": {"embedding": embedding(2_999)}, "limit": 50}
        results = client.post("/v1/search", json=query).json()["results"]
        assert [each["id"] for each in results].count("shoe") == 1
        assert (results[0]["id"], results[0]["metadata"]) == ("shoe", {"price": 2_999})


def _buildings(root: Path) -> set[Path]:
    return set((root / VERSIONS).glob(".building-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux to hold on to processes")
def test_compaction_works_after_ten_that_were_killed(root: Path, tmp_path: Path) -> None:
    write(root, "new", "newer")
    launcher, log, killed = Launcher(), tmp_path / "log", 0
    for number in range(10):
        before, known = current_version(root), _buildings(root)
        handle = os.pidfd_open(launcher.start(["compact", str(root)], {}, log))
        ended = partial(select.select, [handle], [], [])
        while not ended(0)[0] and _buildings(root) <= known:
            pass
        time.sleep(0.003 * number)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        ended()
        os.close(handle)
        if current_version(root) == before:
            killed += 1
        else:  # it was faster
            write(root, f"new {number}")
    launcher.close()
    assert killed > 5, (killed, log.read_text())
    with serving(root, compact_items=0) as client:
        assert client.get("/v1/collections/photographs").json()["pending_writes"]
        run_compact(root)
        assert client.post("/v1/collections/photographs/reload").status_code == 200
        facts = client.get("/v1/collections/photographs").json()
        assert (facts["pending_writes"], facts["version"]) == (0, current_version(root))
        assert {"new", "newer"} <= {each["id"] for each in client.get("/v1/items").json()["items"]}
    assert not _buildings(root)
    assert len(list((root / VERSIONS).iterdir())) <= 2
