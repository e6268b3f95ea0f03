"""Fixtures: a running service, and pages of it in a headless Chromium.

The system's Chromium is used (Debian: apt-get install chromium), found on the PATH or named by LOOKALIKE_CHROMIUM.
Without one, these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from app.main import create_app
from app.server.server import Server, run
from app.server.sockets import listen
from app.settings import Settings
from tests.api.small_collection import build_collection, photograph
from tests.api.waiting import eventually

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a service with nine photographs, in a thread of this process."""
    collection = build_collection(tmp_path_factory.mktemp("web") / "photographs")
    with serving(Settings(collection=collection, max_body_bytes=2_000_000)) as address:
        yield address


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Run a service; yield its URL once it is ready."""
    server, listener = Server(create_app(settings)), listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=run, args=(server, [listener]))
    thread.start()
    try:
        eventually(lambda: httpx.get(f"{address}/readyz").status_code == 200, 60.0)
        yield address
    finally:
        server.stop()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return Chromium; skip the tests if it is not installed.

    It is closed with its module: Playwright keeps an event loop running in the tests' thread, and later tests could
    not start their own.
    """
    executable = os.environ.get("LOOKALIKE_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        pytest.skip("needs Chromium: apt-get install chromium, or set LOOKALIKE_CHROMIUM to its path")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser, site: str) -> Iterator[BrowserContext]:
    """Return a new profile; fail the test on a script error, console error or request to another origin."""
    errors: list[str] = []
    opened = browser.new_context(base_url=site, viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(15_000)
    opened.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.on("request", lambda request: errors.extend(_cross_origin(request.url, site)))
    opened.on("weberror", lambda error: errors.append(f"script error: {error.error}"))
    opened.on("console", lambda message: errors.extend([message.text] if message.type == "error" else []))
    yield opened
    opened.close()
    # Tests provoke error statuses and a lost network, which the console reports too.
    provoked = ("the server responded with a status of", "net::ERR_INTERNET_DISCONNECTED")
    assert [text for text in errors if not any(each in text for each in provoked)] == []


def _cross_origin(url: str, site: str) -> list[str]:
    allowed = url == site or url.startswith((f"{site}/", f"{site}?", "blob:", "data:"))
    return [] if allowed else [f"request to another origin: {url}"]


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """Return the start page with its images loaded. Near-duplicates are shown: the fake encoder finds many."""
    opened = context.new_page()
    opened.goto("/?dup=1")
    opened.wait_for_selector(".card")
    return opened


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a photograph of the collection."""
    path = tmp_path_factory.mktemp("upload") / "my motorcycle.png"
    path.write_bytes(photograph("left.png"))
    return path
