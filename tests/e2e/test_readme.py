"""The README's commands and queries, executed.

A block after `<!-- runs -->` is run by a shell in an empty folder. A block after `<!-- asks -->` is sent to a service
with the sample gallery, and its response is compared with the JSON block that follows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.e2e.commands import serving

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
RUNS = re.findall(r"<!-- runs -->\n```sh\n(.*?)```", README, re.S)
ASKS = re.findall(r"<!-- asks -->\n```sh\n(.*?)```\n\n```json\n(.*?)```", README, re.S)


def _shell(script: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert process.returncode == 0, f"{script}\n{process.stdout}\n{process.stderr}"
    return process.stdout


def test_readme_has_commands_and_queries() -> None:
    assert len(RUNS) >= 1
    assert len(ASKS) >= 3


def test_readme_commands_succeed(tmp_path: Path) -> None:
    for script in RUNS:
        _shell(script, tmp_path)


def test_readme_queries_give_the_responses_shown(gallery: Path, sample_collection: Path) -> None:
    with serving(sample_collection) as address:
        for script, shown in ASKS:
            command = script.replace("http://127.0.0.1:8000", address).replace("photos/", f"{gallery}/")
            _assert_same(json.loads(_shell(command, gallery)), json.loads(shown))


@pytest.mark.parametrize("target", ["demo", "test", "check"])
def test_readme_make_targets_exist(target: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert f"make {target}" in README or target == "check"
    assert re.search(rf"^{target}:", makefile, re.M)


def test_readme_links_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def _assert_same(got: Any, shown: Any) -> None:
    """Compare structure and text; numbers may differ by the rounding and speed of another CPU."""
    if isinstance(shown, dict):
        assert set(got) == set(shown)
        for key in set(shown) - {"took_ms", "version", "collection"}:
            _assert_same(got[key], shown[key])
    elif isinstance(shown, list):
        assert len(got) == len(shown)
        for one, other in zip(got, shown, strict=True):
            _assert_same(one, other)
    elif isinstance(shown, float):
        assert got == pytest.approx(shown, abs=0.02)
    else:
        assert got == shown
