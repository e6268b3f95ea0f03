"""A headless Chromium in front of a running service.

The browser is the system's (Debian: apt-get install chromium), found on the PATH or named by LOOKALIKE_CHROMIUM;
without one these tests are skipped. They leave nothing behind unless LOOKALIKE_SCREENSHOT names a file.
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
    """The address of a service over nine photographs, on a thread of this process."""
    collection = build_collection(tmp_path_factory.mktemp("web") / "photographs")
    with serving(Settings(collection=collection, max_body_bytes=2_000_000)) as address:
        yield address


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """A ready service's address."""
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
    """Chromium; the tests are skipped where there is none.

    It lives no longer than its module: Playwright leaves an event loop running on the thread of the tests, and one
    that comes after could not start its own.
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
    """A fresh profile that fails the test on any script error, console error or request to another origin."""
    complaints: list[str] = []
    opened = browser.new_context(base_url=site, viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(15_000)
    opened.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.on("request", lambda request: complaints.extend(_foreign(request.url, site)))
    opened.on("weberror", lambda error: complaints.append(f"script error: {error.error}"))
    opened.on("console", lambda message: complaints.extend([message.text] if message.type == "error" else []))
    yield opened
    opened.close()
    # An error status that a test provokes is told by the console as well; what the page makes of it is tested.
    assert [text for text in complaints if "the server responded with a status of" not in text] == []


def _foreign(url: str, site: str) -> list[str]:
    return [] if url.startswith((f"{site}/", "blob:", "data:")) else [f"request to another origin: {url}"]


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """The start page with its images."""
    opened = context.new_page()
    opened.goto("/")
    opened.wait_for_selector(".card")
    return opened


@pytest.fixture(scope="module")
def make_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of the collection as a file."""
    path = tmp_path_factory.mktemp("upload") / "my motorcycle.png"
    path.write_bytes(photograph("left.png"))
    return path
