"""The service over a small collection, in this process and as a command of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.api.small_collection import build_collection


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photographs, indexed by the fake encoder."""
    return build_collection(tmp_path_factory.mktemp("api") / "photographs")


@pytest.fixture(scope="session")
def settings(collection: Path) -> Settings:
    """Limits small enough to run into."""
    return Settings(collection=collection, max_body_bytes=2_000_000, max_pixels=1_000_000, max_results=50, max_text=200)


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    """A client of the ready service."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as opened:
        wait_until_ready(opened)
        yield opened


def wait_until_ready(client: TestClient) -> None:
    deadline = time.monotonic() + 60
    while (response := client.get("/readyz")).status_code != 200:
        assert time.monotonic() < deadline, response.text
        assert "could not be opened" not in response.text
        time.sleep(0.02)
