"""Decoding of one item, which the decode threads run: pixels and thumbnail, or the error for `rejected.parquet`."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike import images
from lookalike.encoders.protocol import Encoder
from lookalike.errors import ImageUndecodable, LookalikeError
from lookalike.sources.item import Item
from lookalike.types import UInt8

DECODER_VERSION = 1
"""Increment it when `lookalike.images` makes other pixels or thumbnails of the same bytes: all images are then encoded
again."""


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """An item to decode, with its identity."""

    item: Item
    id_hash: int
    fingerprint: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded item.

    Attributes:
        task: the item and its identity.
        pixels: (3, S, S) uint8, the encoder's input.
        thumbnail: image bytes.
        width: of the original, pixels.
        height: of the original, pixels.
        format: `JPEG`, ...
    """

    task: DecodeTask
    pixels: UInt8
    thumbnail: bytes
    width: int
    height: int
    format: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item that could not be decoded."""

    task: DecodeTask
    error: LookalikeError


@dataclass(frozen=True, slots=True)
class Decoder:
    """The function of the decode threads.

    Attributes:
        encoder: only its preprocessing is used, which is thread-safe.
        max_pixels: width x height above which an image is rejected.
    """

    encoder: Encoder
    max_pixels: int

    def __call__(self, task: DecodeTask) -> Decoded | Rejected:
        """Decode an item. Never raises: errors are returned."""
        try:
            data = task.item.load()
            target = self.encoder.preprocessing.resize  # as for queries, so that the same image scores 1.0
            image = images.decode(data, max_pixels=self.max_pixels, target=target)
            pixels = self.encoder.preprocess(image.image)
            if 2 * target < images.THUMBNAIL_SIDE:  # an encoder of very small images: too small for a thumbnail
                image = images.decode(data, max_pixels=self.max_pixels, target=images.THUMBNAIL_SIDE // 2)
            thumbnail = images.encode_thumbnail(image.image)
        except LookalikeError as error:
            return Rejected(task, error)
        except Exception as error:  # an odd image that trips Pillow or a codec must not stop the other millions
            return Rejected(task, ImageUndecodable(f"{type(error).__name__}: {error}"))
        return Decoded(task, pixels, thumbnail, image.width, image.height, image.format)
