"""RGB image -> thumbnail."""

from __future__ import annotations

import io

from PIL import Image

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail, pixels. Where it changes, increment `lookalike.prepared_image.DECODER_VERSION` too:
unchanged images keep their thumbnails otherwise."""


def encode_thumbnail(image: Image.Image, side: int = THUMBNAIL_SIDE) -> bytes:
    """Return JPEG bytes of at most `side` pixels a side, never enlarged, without the original's metadata.

    JPEG, since WebP takes seven times as long (1.5 ms instead of 0.2 for 224 pixels) to save an eighth of the bytes.
    """
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.info = {}  # else an ICC profile, a comment or EXIF would be written again
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
