"""A service of its own process, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike_client import Client
from tests.api.small_collection import build_collection
from tests.e2e.commands import serving


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photographs."""
    return build_collection(tmp_path_factory.mktemp("client") / "photographs")


@pytest.fixture(scope="session")
def address(collection: Path) -> Iterator[str]:
    """The address of a service with them, `photographs`."""
    with serving(collection, LOOKALIKE_MAX_RESULTS="50") as address:
        yield address


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client
