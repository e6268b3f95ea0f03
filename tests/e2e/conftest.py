"""Collections that the end-to-end tests share, made by the command itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.commands import invoke_json, lookalike


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample gallery: two dozen photographs with their names as captions."""
    folder = tmp_path_factory.mktemp("sample") / "photos"
    assert lookalike("gallery", folder).returncode == 0
    return folder


@pytest.fixture(scope="session")
def sample_collection(gallery: Path) -> Path:
    """The sample gallery, indexed by the default encoder."""
    out = gallery.parent / "collection"
    summary = invoke_json("index", gallery, "--out", out)
    assert (summary["indexed"], summary["rejected"]) == (24, 0)
    return out
