"""The order of the slow tests, and fixtures of other folders that they use."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import gallery, sample_collection
from tests.web.conftest import browser, context, image, page

__all__ = ["browser", "context", "gallery", "image", "page", "pytest_collection_modifyitems", "sample_collection"]

FIRST = ("test_train_command", "test_slow_pages", "test_milvus_server")
"""Files that take longest: they begin first, so that no process waits for one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of these files to the front, in order."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))
