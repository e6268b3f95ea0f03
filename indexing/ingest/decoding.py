"""One item -> pixels and thumbnail, or the error that goes to `rejected.parquet`: what the decode threads run."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike import images
from lookalike.encoders.protocol import Encoder
from lookalike.errors import ImageUndecodable, LookalikeError
from lookalike.sources.item import Item
from lookalike.types import UInt8


@dataclass(frozen=True, slots=True)
class Job:
    """An item that has to be decoded, with its identity."""

    item: Item
    id_hash: int
    fingerprint: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded item.

    Attributes:
        job: what it was made of.
        pixels: (3, S, S) uint8, as the encoder takes it.
        thumbnail: image bytes.
        width: of the original, pixels.
        height: of the original, pixels.
        format: `JPEG`, ...
    """

    job: Job
    pixels: UInt8
    thumbnail: bytes
    width: int
    height: int
    format: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that did not become an image."""

    job: Job
    error: LookalikeError


@dataclass(frozen=True, slots=True)
class Decoder:
    """The function of the decode threads.

    Attributes:
        encoder: of which nothing but the preprocessing is used; any number of threads may do that.
        max_pixels: width x height above which an image is refused.
    """

    encoder: Encoder
    max_pixels: int

    def __call__(self, job: Job) -> Decoded | Refused:
        """Never raises: a bad image is an answer."""
        try:
            data = job.item.load()
            target = self.encoder.preprocessing.resize  # as for queries, so that the same image scores 1.0
            image = images.decode(data, max_pixels=self.max_pixels, target=target)
            pixels = self.encoder.preprocess(image.image)
            if 2 * target < images.THUMBNAIL_SIDE:  # an encoder of very small images: decoded too small to look at
                image = images.decode(data, max_pixels=self.max_pixels, target=images.THUMBNAIL_SIDE // 2)
            thumbnail = images.encode_thumbnail(image.image)
        except LookalikeError as error:
            return Refused(job, error)
        except Exception as error:  # an odd image that trips Pillow or a codec must not stop the other millions
            return Refused(job, ImageUndecodable(f"{type(error).__name__}: {error}"))
        return Decoded(job, pixels, thumbnail, image.width, image.height, image.format)
