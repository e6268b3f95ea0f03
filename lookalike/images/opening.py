"""Opening a file of any accepted format: its header is read, and its pixels are not decompressed."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from lookalike.errors import ImageError, ImageUndecodable, ImageUnsupported
from lookalike.images.deep_tiff import open_deep_tiff
from lookalike.images.formats import FORMATS, content_format
from lookalike.images.heif import HeifFile
from lookalike.images.jpeg import JpegFile
from lookalike.images.jpeg2000 import icc_profile
from lookalike.images.jxl import open_jxl
from lookalike.images.opened import OpenedImage, PillowFile
from lookalike.images.raw import is_raw_tiff, open_raw

_HEAD_BYTES = 128
_ALSO = {"TIFF": ", or its pixels are stored in a way that is not read; save it without compression, or as PNG"}


def open_image(data: bytes, target: int | None = None) -> OpenedImage:
    """Read the header of an image.

    Args:
        data: the file.
        target: side in pixels of the image that is needed, None for the full size.

    Raises:
        ImageUnsupported: not an image, not of an accepted format, or of one that needs an extra.
        ImageUndecodable: empty, or the header is truncated or corrupt.
    """
    if not data:
        raise ImageUndecodable("empty file: zero bytes")
    kind = content_format(data[:_HEAD_BYTES])
    if kind is None:
        accepted = ", ".join(FORMATS)
        raise ImageUnsupported(f"not an image of an accepted format ({accepted}); its bytes begin {data[:8].hex(' ')}")
    try:
        return _open(data, kind, target)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageUndecodable(
            f"the header of the {kind} image is truncated or corrupt{_ALSO.get(kind, '')}"
        ) from error
    except Exception as error:  # hostile headers make the parsers raise nearly anything
        raise ImageUndecodable(f"the header of the {kind} image is truncated or corrupt: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """Return a library's message, which may have several lines, in one."""
    return " ".join(str(error).split())


def _open(data: bytes, kind: str, target: int | None) -> OpenedImage:
    if kind == "JPEG":
        return JpegFile(data, target)
    if kind == "JXL":
        return open_jxl(data, target)
    if kind == "RAW" or (kind == "TIFF" and is_raw_tiff(data)):
        return open_raw(data, target)
    if kind == "HEIF":
        return HeifFile(data)
    deep_tiff = open_deep_tiff(data) if kind == "TIFF" else None
    image = deep_tiff or Image.open(io.BytesIO(data), formats=[kind])
    if kind == "JPEG2000":
        image.info["icc_profile"] = icc_profile(data)
    return PillowFile(image)
