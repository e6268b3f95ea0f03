"""The documentation site as a reader opens it: from disk, without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built from a copy of docs/."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(REPOSITORY / "zensical.toml", folder)
    shutil.copytree(REPOSITORY / "docs", folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    command = [Path(sys.executable).parent / "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


def test_site_is_read_and_searched_from_disk(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((site / "guides" / "index-images.html").as_uri())
    page.keyboard.press("/")
    field = page.get_by_placeholder("Search").last
    expect(field).to_be_focused()
    field.press_sequentially("nprobe")
    expect(page.get_by_role("option").filter(has_text="Vector index").first).to_be_visible()
    expect(field).to_have_value("nprobe")
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    assert errors == []


def test_site_has_every_page_and_image(site: Path) -> None:
    docs = REPOSITORY / "docs"
    pages = [page.relative_to(docs).with_suffix(".html") for page in docs.rglob("*.md")]
    images = [image.relative_to(docs) for image in docs.rglob("*.png")]
    assert len(pages) > 20
    assert [str(file) for file in [*pages, *images] if not (site / file).is_file()] == []
