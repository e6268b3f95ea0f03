"""Opening a file of an accepted format without decompressing it."""

from __future__ import annotations

import io

from PIL import Image
from pillow_heif import HeifImageFile

from lookalike.errors import ImageUndecodable, ImageUnsupported
from lookalike.images.deep_tiff import open_deep_tiff
from lookalike.images.formats import FORMATS, content_format

_HEAD_BYTES = 128


def open_image(data: bytes) -> Image.Image:
    """Read the header of an image; its pixels are not decompressed.

    Raises:
        ImageUnsupported: not an image, or not of an accepted format.
        ImageUndecodable: empty, or the header is truncated or corrupt.
    """
    if not data:
        raise ImageUndecodable("empty file: zero bytes")
    kind = content_format(data[:_HEAD_BYTES])
    if kind is None or kind in ("JXL", "RAW"):
        raise ImageUnsupported(
            f"not an image of an accepted format ({', '.join(FORMATS)}); its bytes begin {data[:8].hex(' ')}"
        )
    try:
        if kind == "HEIF":  # not by `register_heif_opener`, which would change Pillow for the whole process
            return HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
        deep_tiff = open_deep_tiff(data) if kind == "TIFF" else None
        return deep_tiff or Image.open(io.BytesIO(data), formats=[kind])
    except Exception as error:  # hostile headers make the parsers raise nearly anything
        raise ImageUndecodable(f"the header of the {kind} image is truncated or corrupt: {error}") from error
