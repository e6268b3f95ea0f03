"""The accepted image formats, and opening a file of one of them without decompressing it."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from lookalike.errors import ImageUndecodable, ImageUnsupported

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Accepted formats by Pillow's names. Its JPEG opener also takes MPO, a JPEG with a preview that many phones write."""

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""File name extensions of images, lower case."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")


def open_image(data: bytes) -> Image.Image:
    """Read the header of an image; its pixels are not decompressed.

    Raises:
        ImageUnsupported: not an image, or not of an accepted format.
        ImageUndecodable: empty, or the header is truncated or corrupt.
    """
    if not data:
        raise ImageUndecodable("empty file: zero bytes")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if data.startswith(_MAGIC):
            raise ImageUndecodable("the header of the image is truncated or corrupt") from error
        accepted = ", ".join(FORMATS).replace("WEBP", "WebP")
        raise ImageUnsupported(
            f"not an image of an accepted format ({accepted}); its bytes begin {data[:8].hex(' ')}"
        ) from error
    except Exception as error:  # hostile headers make Pillow's parsers raise nearly anything
        raise ImageUndecodable(f"the header of the image is corrupt: {error}") from error


def is_image_start(head: bytes) -> bool:
    """Return whether the first bytes of a file, at least 64, may be those of an accepted format."""
    return head.startswith(_MAGIC)
