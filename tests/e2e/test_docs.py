"""The commands and queries of the README and of the documentation's pages, executed.

Markers precede the code blocks, each page's in order, in a folder of the page's own:

- `<!-- runs -->`: the block, sh or python, must succeed. The folder starts empty.
- `<!-- asks -->`: the same, while a service serves the sample gallery; `photos` is the gallery, `my-collection` its
  collection. A JSON block that follows must be the block's output.
- `<!-- writes -->`: the same, while a writable service serves a copy of that collection, which is the page's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.e2e.commands import serving

README = REPOSITORY / "README.md"
_BLOCK = re.compile(
    r"^(?P<indent> *)<!-- (?P<marker>runs|asks|writes) -->\n"
    r"(?P=indent)```(?P<language>sh|python)\n(?P<code>.*?)^(?P=indent)```\n"
    r"(?:\n*(?P=indent)```json\n(?P<shown>.*?)^(?P=indent)```\n)?",
    re.DOTALL | re.MULTILINE,
)
_ADDRESS = "http://127.0.0.1:8000"
_VARYING = {"took_ms", "version", "collection", "created", "etag"}
_VERSION_PARAMETER = re.compile(r"(?<=[?&]v=)[\w.-]+")


@dataclass(frozen=True, slots=True)
class Block:
    """A marked block of code; `shown` is the JSON that it prints, empty if none is shown."""

    marker: str
    language: str
    code: str
    shown: str


def _blocks(page: Path) -> list[Block]:
    return [
        Block(found["marker"], found["language"], *map(textwrap.dedent, (found["code"], found["shown"] or "")))
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


PAGES = {
    str(page.relative_to(REPOSITORY)): _blocks(page) for page in [README, *sorted((REPOSITORY / "docs").rglob("*.md"))]
}


SLOW_PAGES = ["docs/guides/fine-tune.md"]
"""Pages that train an encoder: `tests/slow/test_slow_pages.py` runs them."""


@pytest.fixture(scope="module")
def address(sample_collection: Path) -> Iterator[str]:
    """The address of a service with the sample gallery."""
    with serving(sample_collection) as address:
        yield address


@pytest.fixture
def writable_collection(sample_collection: Path, tmp_path: Path) -> Path:
    """A copy of the sample collection in the page's folder."""
    return shutil.copytree(sample_collection, tmp_path / "my-collection")


@pytest.fixture
def writable_address(writable_collection: Path) -> Iterator[str]:
    """The address of a writable service over the copy."""
    with serving(writable_collection, LOOKALIKE_WRITABLE="true") as address:
        yield address


@pytest.mark.parametrize("page", [name for name, blocks in PAGES.items() if blocks and name not in SLOW_PAGES])
def test_page_code_runs(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run_page(page, tmp_path, request)


def run_page(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Run the blocks of a page in order, in one folder."""
    if any(block.marker == "writes" for block in PAGES[page]):
        request.getfixturevalue("writable_collection")  # before other blocks use the collection that all pages share
    for block in PAGES[page]:
        code = block.code
        if block.marker != "runs":
            address = "address" if block.marker == "asks" else "writable_address"
            code = code.replace(_ADDRESS, request.getfixturevalue(address))
            for name, fixture in (("photos", "gallery"), ("my-collection", "sample_collection")):
                if not (tmp_path / name).exists():
                    (tmp_path / name).symlink_to(request.getfixturevalue(fixture))
        output = _run(block.language, code, tmp_path)
        if block.shown:
            _assert_same(json.loads(output), json.loads(block.shown))


def test_readme_shows_commands_and_queries() -> None:
    blocks = PAGES["README.md"]
    assert sum(block.marker == "runs" for block in blocks) >= 1
    assert sum(block.marker == "asks" and bool(block.shown) for block in blocks) >= 3


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", *PAGES])
def test_make_targets_of_pages_exist(page: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:^|`)make ([a-z-]+)", (REPOSITORY / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def _run(language: str, code: str, folder: Path) -> str:
    """Run a block in a folder; it must succeed. Return its standard output."""
    interpreter = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.run(
        [*interpreter, code],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert process.returncode == 0, f"{code}\n{process.stdout}\n{process.stderr}"
    return process.stdout


def _assert_same(got: Any, shown: Any) -> None:
    """Compare structure and text; numbers may differ by the rounding and speed of another CPU."""
    if isinstance(shown, dict):
        assert set(got) == set(shown)
        for key in set(shown) - _VARYING:
            _assert_same(got[key], shown[key])
    elif isinstance(shown, list):
        assert len(got) == len(shown)
        for one, other in zip(got, shown, strict=True):
            _assert_same(one, other)
    elif isinstance(shown, float):
        assert got == pytest.approx(shown, abs=0.02)
    elif isinstance(shown, str):
        assert _VERSION_PARAMETER.sub("", got) == _VERSION_PARAMETER.sub("", shown)
    else:
        assert got == shown
