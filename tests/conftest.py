"""Fixtures for every kind of test."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

# umap-learn compiles for 15 seconds in every process; for a few images, interpreting it takes two.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_data_folder() -> Path | None:
    """The folder of real photographs that tests may use: LOOKALIKE_TEST_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("LOOKALIKE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    return folder if (folder / "flickr8k" / "val.tar").is_file() else None


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that asynchronous tests run on: the service's."""
    return "asyncio"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared data folder; the test is skipped where it is absent."""
    folder = shared_data_folder()
    if folder is None:
        pytest.skip("needs the captioned photographs: set LOOKALIKE_TEST_DATA to their folder")
    return folder


def load_script(name: str) -> ModuleType:
    """Return `scripts/NAME.py` as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
