"""Compactions that a writable service runs by itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from app.collections.compaction import Compactor
from app.collections.hosted import HostedCollection
from app.main import create_app
from app.settings import Settings
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import ITEMS, PHOTOGRAPHS, build_collection
from tests.api.waiting import eventually

IMAGE = (PHOTOGRAPHS / "coffee.png").read_bytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_collection(tmp_path / "photographs")


@pytest.fixture
def client(root: Path) -> Iterator[TestClient]:
    settings = Settings(collection=root, writable=True, compact_items=3)
    with TestClient(create_app(settings), raise_server_exceptions=False) as opened:
        wait_until_ready(opened)
        yield opened


def facts(client: TestClient) -> Any:
    return client.get("/v1/collections/photographs").json()


def test_enough_writes_start_a_compaction(client: TestClient) -> None:
    before = facts(client)["version"]
    tag = client.put("/v1/items/new", content=IMAGE, headers={"Content-Type": "image/png"}).headers["etag"]
    client.patch("/v1/items/left.png", json={"metadata": {"caption": "wheels"}})
    assert facts(client)["pending_writes"] == 2
    client.delete("/v1/items/cup")
    eventually(lambda: facts(client)["version"] != before, seconds=60)
    assert (facts(client)["pending_writes"], facts(client)["items"]) == (0, len(ITEMS))
    item = client.get("/v1/items/new")
    assert item.headers["etag"] == tag
    assert client.get(item.json()["thumbnail_url"]).status_code == 200
    assert client.get("/v1/items/left.png").json()["metadata"]["caption"] == "wheels"
    assert client.get("/v1/items/cup").status_code == 404
    counted = 'lookalike_compactions_total{collection="photographs"} 1.0'
    eventually(lambda: counted in client.get("/metrics").text)
    assert client.put("/v1/items/cup", content=IMAGE, headers={"Content-Type": "image/png"}).status_code == 201
    assert facts(client)["pending_writes"] == 1


class Hosted:
    """A collection with pending writes."""

    def __init__(self, pending: int) -> None:
        self.root, self.name, self.pending_writes, self.reloads = Path("/gallery"), "gallery", pending, 0

    async def reload(self) -> None:
        self.reloads += 1


def compactor(hosted: Hosted, script: str, *, items: int = 0, seconds: float = 0.0) -> Compactor:
    settings = cast(Settings, SimpleNamespace(compact_items=items, compact_seconds=seconds))
    return Compactor(cast(HostedCollection, hosted), settings, (sys.executable, "-c", script), 0.05)


async def run_for(each: Compactor, seconds: float) -> None:
    task = asyncio.create_task(each.run())
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_failed_compaction_is_logged_and_waits(caplog: pytest.LogCaptureFixture) -> None:
    hosted = Hosted(pending=5)
    failing = compactor(hosted, "import sys; sys.exit('error: the disk is full')", items=5)
    asyncio.run(run_for(failing, 1.0))
    assert (failing.runs, failing.failures, hosted.reloads) == (0, 1, 0)
    assert "compaction_failed collection=gallery: error: the disk is full" in caplog.text


def test_oldest_write_starts_a_compaction() -> None:
    hosted = Hosted(pending=1)
    by_age = compactor(hosted, "pass", items=5, seconds=1.0)
    asyncio.run(run_for(by_age, 0.8))
    assert by_age.runs == 0
    asyncio.run(run_for(by_age, 0.9))
    assert (by_age.runs, hosted.reloads) == (1, 1)


def test_nothing_pending_starts_none() -> None:
    idle = compactor(Hosted(pending=0), "pass", items=1, seconds=0.1)
    asyncio.run(run_for(idle, 0.5))
    assert (idle.runs, idle.failures) == (0, 0)


def test_stopped_service_ends_its_compaction(tmp_path: Path) -> None:
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    asyncio.run(run_for(compactor(Hosted(pending=1), script, items=1), 1.0))
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
