"""What the image is built from: every room of the project is copied in, and nothing that is copied is ignored."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copied() -> set[str]:
    """Names that the Dockerfile copies out of the build context."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return {name for line in lines for name in line.split()[:-1]}


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    for name in copied():
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignore, f"{name} is copied, but .dockerignore leaves it out"


def test_every_room_is_in_the_image() -> None:
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["build-backend"]
    assert set(backend["module-name"]) <= copied()
