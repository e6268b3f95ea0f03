"""Faults that a writable service survives, or for which it refuses to serve: a full disk, damaged files, bad timing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.collections import hosted
from app.main import create_app
from app.settings import Settings
from indexing.compaction import run_compact
from lookalike.collection import current_version, open_collection
from lookalike.encoders.fake import DIM
from lookalike.writes.operations import Put
from lookalike.writes.writer import Writer, lock_writes
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import ITEMS, build_collection


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
