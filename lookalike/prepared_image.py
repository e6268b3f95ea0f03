"""An image file's bytes -> what a collection stores of it, and what its encoder takes.

The indexing job, the service and `lookalike add` share these steps, so that the same file gives the same item.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from lookalike import images
from lookalike.encoders.protocol import Encoder
from lookalike.types import UInt8

DECODER_VERSION = 2
"""Increment it when `lookalike.images` makes other pixels or thumbnails of the same bytes: all images are then encoded
again."""

CONTENT_HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A decoded image.

    Attributes:
        pixels: (3, S, S) uint8, the encoder's input.
        thumbnail: image bytes.
        width: of the original, pixels.
        height: of the original, pixels.
        format: `JPEG`, ...
        truncated: whether the end of the file is missing, and it was read as far as it goes.
        content_hash: of the file, 16 bytes.
    """

    pixels: UInt8
    thumbnail: bytes
    width: int
    height: int
    format: str
    truncated: bool
    content_hash: bytes

    @property
    def measured(self) -> dict[str, Any]:
        """The columns that are measured on the image, as `lookalike.writes.operations.Put` takes them."""
        columns = {"width": self.width, "height": self.height, "format": self.format}
        return {**columns, "truncated": True} if self.truncated else columns


def prepare(data: bytes, encoder: Encoder, max_pixels: int, *, known_hash: bytes | None = None) -> PreparedImage:
    """Decode and preprocess an image file; safe to call from any thread.

    Args:
        data: the file's bytes.
        encoder: only its preprocessing is used.
        max_pixels: width x height above which the image is rejected.
        known_hash: `content_hash(data)` where the caller has it already.

    Raises:
        ImageError: the image can't be decoded.
    """
    target = encoder.preprocessing.resize  # as for queries, so that the same image scores 1.0
    image = images.decode(data, max_pixels=max_pixels, target=target)
    pixels = encoder.preprocess(image.image)
    if 2 * target < images.THUMBNAIL_SIDE:  # an encoder of very small images: too small for a thumbnail
        image = images.decode(data, max_pixels=max_pixels, target=images.THUMBNAIL_SIDE // 2)
    return PreparedImage(
        pixels,
        images.encode_thumbnail(image.image),
        image.width,
        image.height,
        image.format,
        image.truncated,
        content_hash(data) if known_hash is None else known_hash,
    )


def content_hash(data: bytes) -> bytes:
    """Return 16 bytes of SHA-256 over the decoder's version and a file's bytes.

    Other pixels of the same bytes are another content. SHA-256 is faster here than BLAKE2b: processors have
    instructions for it.
    """
    digest = hashlib.sha256(b"%d\0" % DECODER_VERSION)
    digest.update(data)
    return digest.digest()[:CONTENT_HASH_BYTES]
