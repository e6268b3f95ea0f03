"""Images of callers -> the bytes of image files."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


@runtime_checkable
class ReadableFile(Protocol):
    """A file that is open in binary mode."""

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes, all by default."""


@runtime_checkable
class PillowImage(Protocol):
    """What the client uses of `PIL.Image.Image`."""

    @property
    def mode(self) -> str:
        """The pixel format."""

    def convert(self, mode: str) -> Any:
        """Return the image in another pixel format."""

    def getexif(self) -> Any:
        """Return the Exif tags."""

    def save(self, fp: IO[bytes], format: str | None = None, **params: Any) -> None:
        """Write the image to a file."""


ImageFile = os.PathLike[str] | bytes | ReadableFile | PillowImage
"""An image that can't be mistaken for a text: a `Path`, the bytes of a file, an open file or a Pillow image."""

ImageInput = str | ImageFile
"""An image; a `str` is the path of its file."""


def image_bytes(image: ImageInput) -> bytes:
    """Return the bytes of an image file.

    A Pillow image is written as PNG, with its colour profile and its Exif orientation.

    Raises:
        OSError: the file can't be read.
        TypeError: no image of a known kind.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return _path(image).read_bytes()
    if isinstance(image, PillowImage):
        return _as_png(image)
    data = image.read() if isinstance(image, ReadableFile) else None
    if isinstance(data, bytes):
        return data
    raise TypeError(
        f"an image is a path, the bytes of a file, a file open in binary mode or a Pillow image, not {type(image)}"
    )


def as_base64(image: ImageInput) -> str:
    """Return the bytes of an image file as base64; raises as `image_bytes` does."""
    return base64.b64encode(image_bytes(image)).decode("ascii")


def _path(path: str | os.PathLike[str]) -> Path:
    if isinstance(path, str) and path.startswith(("http://", "https://")):
        raise ValueError(f"{path!r} is a URL, not a file; give it as image_url")
    return Path(path)


def _as_png(image: PillowImage) -> bytes:
    file = io.BytesIO()
    exif = image.getexif()
    kept = image if image.mode in _PNG_MODES else image.convert("RGB")
    kept.save(file, format="PNG", **({"exif": exif} if exif else {}))
    return file.getvalue()
