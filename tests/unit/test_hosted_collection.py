"""A hosted collection whose versions open or fail as a test says: retries, coalescing and the facts it shows."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from app.api.collections import _collection_response
from app.collections import hosted as hosted_module
from app.collections.backoff import Backoff
from app.collections.hosted import HostedCollection
from app.collections.runtime import Runtime
from app.collections.state import State
from app.collections.status import OpenVersion
from app.errors import NotReady
from app.execution.pipeline import QueryPipeline
from app.settings import Settings
from lookalike.collection import CURRENT, VERSIONS, current_version
from lookalike.errors import LookalikeError, ManifestInvalid


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class IdleWorkers:
    """Encoder workers without a batch."""

    def busy_seconds(self) -> float:
        return 0.0


class Gallery:
    """A collection's folder whose versions hold one file; it says how opening ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.clock = Clock()
        runtime = Runtime(
            Settings(collection=root, deadline=1.0), *cast(Any, (None, IdleWorkers(), None, None, None, None, None))
        )
        self.hosted = HostedCollection(root, runtime)
        self.hosted.backoff = Backoff(clock=self.clock)

    async def open_version(self, *_: Any) -> OpenVersion:
        name = current_version(self.root)
        self.opened.append(name)
        await asyncio.sleep(0)
        if name in self.errors:
            raise self.errors[name]
        return OpenVersion(name, cast(QueryPipeline, MagicMock()), 1)

    def publish(self, name: str, content: str = "", error: Exception | None = None) -> None:
        folder = self.root / VERSIONS / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vectors.npy").write_text(content)
        (self.root / CURRENT).write_text(name)
        self.errors.pop(name, None)
        if error:
            self.errors[name] = error


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    made = Gallery(tmp_path / "gallery")
    monkeypatch.setattr(hosted_module, "open_version", made.open_version)
    return made


BROKEN = ManifestInvalid("damaged")
FULL = OSError("no space left on device")


async def test_refused_version_waits_for_other_files(gallery: Gallery) -> None:
    gallery.publish("1")
    await gallery.hosted.start()
    gallery.publish("2", "damaged", error=BROKEN)
    for _ in range(4):
        gallery.clock.now += 1000.0
        await gallery.hosted._poll()
    assert gallery.opened == ["1", "2"]
    assert (gallery.hosted.version, gallery.hosted.status.state) == ("1", State.STALE)
    gallery.publish("2", "repaired file")
    await gallery.hosted._poll()  # the files have changed, and may still do
    assert gallery.hosted.version == "1"
    await gallery.hosted._poll()
    assert (gallery.hosted.version, gallery.hosted.status.state) == ("2", State.SERVING)


async def test_passing_failure_is_retried_with_growing_delays(gallery: Gallery) -> None:
    gallery.publish("1", error=FULL)
    attempts = []
    for second in range(200):
        gallery.clock.now = float(second)
        with pytest.raises(NotReady, match="no space left on device"):
            await gallery.hosted.ensure_open()
        attempts += [second] * (len(gallery.opened) - len(attempts))
    assert attempts == [0, 5, 15, 35, 75, 135, 195]
    gallery.publish("1")
    gallery.clock.now = 300.0
    await gallery.hosted.ensure_open()
    assert gallery.hosted.status.failures == 0


async def test_query_does_not_retry_a_broken_version(gallery: Gallery) -> None:
    gallery.publish("1", error=BROKEN)
    for _ in range(3):
        gallery.clock.now += 1000.0
        with pytest.raises(NotReady, match="could not be opened: damaged"):
            await gallery.hosted.ensure_open()
    assert gallery.opened == ["1"]


async def test_failed_collection_whose_folder_vanishes_keeps_reason(gallery: Gallery) -> None:
    gallery.publish("1", error=BROKEN)
    await gallery.hosted.start()
    (gallery.root / CURRENT).unlink()
    await gallery.hosted._poll()
    failure = _collection_response(gallery.hosted)["failure"]
    assert (failure["code"], failure["version"]) == ("manifest_invalid", "1")


async def test_reload_ignores_the_backoff(gallery: Gallery) -> None:
    gallery.publish("1", error=FULL)
    for _ in range(2):
        with pytest.raises(LookalikeError, match="OSError: no space left"):
            await gallery.hosted.reload()
    assert gallery.opened == ["1", "1"]


async def test_opening_outlives_the_caller(gallery: Gallery) -> None:
    gallery.publish("1")
    query = asyncio.create_task(gallery.hosted.ensure_open())
    await asyncio.sleep(0)
    query.cancel()
    with suppress(asyncio.CancelledError):
        await query
    await asyncio.wait_for(gallery.hosted.ensure_open(), 5)
    assert gallery.opened == ["1"]


async def test_refused_version_is_not_kept_in_memory(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[weakref.ref[MagicMock]] = []

    async def failing(*_: Any) -> OpenVersion:
        pipeline = MagicMock()
        opened.append(weakref.ref(pipeline))
        raise ManifestInvalid("damaged")

    monkeypatch.setattr(hosted_module, "open_version", failing)
    gallery.hosted.on_failure = lambda error: None  # captured log records would keep it
    gallery.publish("1")
    await gallery.hosted.start()
    gc.collect()
    assert gallery.hosted.has_failed()
    assert opened[0]() is None


async def test_missing_collection_is_logged_once(gallery: Gallery, caplog: pytest.LogCaptureFixture) -> None:
    gallery.publish("1")
    await gallery.hosted.start()
    for _ in range(2):
        away = gallery.root.rename(gallery.root.with_name("away"))
        for _ in range(3):
            await gallery.hosted._poll()
        assert gallery.hosted.status.state is State.DETACHED
        with pytest.raises(LookalikeError):
            await gallery.hosted.reload()
        away.rename(gallery.root)
        await gallery.hosted._poll()
        assert gallery.hosted.status.state is State.SERVING
    assert caplog.text.count("collection_gone version=1 still serves") == 2


@pytest.mark.parametrize("seed", range(10))
async def test_shown_facts_follow_from_the_state(gallery: Gallery, seed: int) -> None:
    """Random events in random order: publishing, failing, moving CURRENT away and back, closing, reloading, polling."""
    chance, hosted = random.Random(seed), gallery.hosted
    current, away = gallery.root / CURRENT, gallery.root.with_name("away")
    gallery.root.mkdir()

    def publish(error: Exception | None = None) -> None:
        gallery.publish(str(chance.randrange(4)), str(chance.random()), error)

    def move(source: Path, target: Path) -> None:
        with suppress(FileNotFoundError):
            source.rename(target)

    async def poll() -> None:
        if hosted.status.state is not State.CLOSED:
            await hosted._poll()

    actions: list[Callable[[], Any]] = [
        publish,
        partial(publish, BROKEN),
        partial(publish, FULL),
        partial(move, current, away),
        partial(move, away, current),
        hosted.close,
        hosted.reload,
        hosted.ensure_open,
        poll,
        poll,
    ]

    for _ in range(60):
        before = hosted.version
        with suppress(LookalikeError):
            if (result := chance.choice(actions)()) is not None:
                await result
        gallery.clock.now += chance.choice([0.0, 1.0, 10.0])
        facts, state = _collection_response(hosted), hosted.status.state
        assert (facts["version"] is not None) == (facts["encoder"] is not None) == state.serves
        assert (facts["failure"] is not None) == state.has_failure == hosted.has_failed()
        if state is State.DETACHED:
            assert facts["failure"]["version"] is None
        if state in (State.STALE, State.DETACHED):
            assert facts["version"] == before
