"""Plain images by colour, as bytes, files and archives, for tests of training and evaluation."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image

from evaluation.datasets import Example
from lookalike.encoders.fake import COLOURS


def make_image(colour: str, kind: str = "PNG") -> bytes:
    """An image of one of the fake encoder's colours."""
    buffer = io.BytesIO()
    Image.new("RGB", (12, 12), COLOURS[colour]).save(buffer, kind)
    return buffer.getvalue()


def example(colour: str, label: str | None = None, captions: tuple[str, ...] = (), key: str = "") -> Example:
    """An image in memory."""
    data = make_image(colour)
    return Example(key or colour, lambda: data, label, captions)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar of the members in their order."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_folders(root: Path, content: dict[str, str]) -> Path:
    """Relative path -> colour, as PNG files."""
    for name, colour in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_image(colour))
    return root
