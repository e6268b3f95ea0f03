"""The work of the decode threads on one item: pixels and thumbnail, a known image, or the error for `rejected.parquet`.

The file's bytes are hashed before they are decoded. An image that was encoded before, under another name or time, is
recognised by this hash and copied instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from indexing.ingest.content_index import ContentIndex
from indexing.ingest.shards import EncodedRow
from indexing.row_stream import CONTENT_HASH_BYTES
from lookalike import images
from lookalike.encoders.protocol import Encoder
from lookalike.errors import BucketUnavailable, ImageUndecodable, LookalikeError
from lookalike.types import UInt8

T = TypeVar("T")

DECODER_VERSION = 2
"""Increment it when `lookalike.images` makes other pixels or thumbnails of the same bytes: all images are then encoded
again."""


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """An item to decode, with its identity.

    Attributes:
        load: as in `Item`.
        id_hash: `lookalike.metadata.id_hash` of its id.
        fingerprint: of the image and the options that decide how it is decoded.
        known_content: hash of the content that was encoded under this identity, to compare the file's with; empty where
            it is unknown; None if there is nothing to compare.
    """

    load: Callable[[], bytes]
    id_hash: int
    fingerprint: int
    known_content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded item.

    Attributes:
        task: the item and its identity.
        content_hash: of the file.
        pixels: (3, S, S) uint8, the encoder's input.
        thumbnail: image bytes.
        width: of the original, pixels.
        height: of the original, pixels.
        format: `JPEG`, ...
        truncated: whether the end of the file is missing, and it was read as far as it goes.
    """

    task: DecodeTask
    content_hash: bytes
    pixels: UInt8
    thumbnail: bytes
    width: int
    height: int
    format: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class Recognised:
    """An item whose content was encoded before: its row, with its own identity."""

    task: DecodeTask
    row: EncodedRow


@dataclass(frozen=True, slots=True)
class Verified:
    """An item whose file still has the content that was encoded."""

    task: DecodeTask


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item that could not be decoded."""

    task: DecodeTask
    error: LookalikeError


@dataclass(frozen=True, slots=True)
class Seen:
    """An item whose content may have been encoded before, which only the process with the index of contents knows.

    Attributes:
        task: the item and its identity.
        content: hash of the file.
    """

    task: DecodeTask
    content: bytes


Outcome = Decoded | Recognised | Verified | Rejected


@dataclass(frozen=True, slots=True)
class Decoder:
    """The function of the decode threads.

    Attributes:
        encoder: only its preprocessing is used, which is thread-safe.
        max_pixels: width x height above which an image is rejected.
        contents: images that were encoded before.
    """

    encoder: Encoder
    max_pixels: int
    contents: ContentIndex

    def __call__(self, task: DecodeTask) -> Outcome:
        """Decode an item, or recognise it. Errors of the item are returned."""
        data = read(task)
        if isinstance(data, Rejected):
            return data
        content = content_hash(data)
        return self.recognise(task, content) or self._decode_or_copy(task, content, data)

    def recognise(self, task: DecodeTask, content: bytes) -> Recognised | Verified | None:
        """Return the outcome for an item whose content was encoded before, None for another."""
        if content == task.known_content:
            return Verified(task)
        before = self._row_before(task, content)
        # The pixel limit may have been lowered since: an image above it is decoded, which rejects it or not.
        if before is None or (before.width or 0) * (before.height or 0) > self.max_pixels:
            return None
        return Recognised(task, before)

    def decode(self, task: DecodeTask, content: bytes, data: bytes) -> Decoded | Rejected:
        """Decode a file whose content has this hash."""
        return _attempt(task, lambda: self._decode(task, content, data))

    def _decode_or_copy(self, task: DecodeTask, content: bytes, data: bytes) -> Outcome:
        decoded = self.decode(task, content, data)
        before = self._row_before(task, content) if isinstance(decoded, Decoded) else None
        return decoded if before is None else Recognised(task, before)

    def _row_before(self, task: DecodeTask, content: bytes) -> EncodedRow | None:
        """Return the row of the same content, with the identity of this item."""
        before = self.contents.find(content)
        if before is None:
            return None
        return EncodedRow(**{**before, "id_hash": task.id_hash, "fingerprint": task.fingerprint})

    def _decode(self, task: DecodeTask, content: bytes, data: bytes) -> Decoded:
        target = self.encoder.preprocessing.resize  # as for queries, so that the same image scores 1.0
        image = images.decode(data, max_pixels=self.max_pixels, target=target)
        pixels = self.encoder.preprocess(image.image)
        if 2 * target < images.THUMBNAIL_SIDE:  # an encoder of very small images: too small for a thumbnail
            image = images.decode(data, max_pixels=self.max_pixels, target=images.THUMBNAIL_SIDE // 2)
        thumbnail = images.encode_thumbnail(image.image)
        return Decoded(task, content, pixels, thumbnail, image.width, image.height, image.format, image.truncated)


def read(task: DecodeTask) -> bytes | Rejected:
    """Return the bytes of an item's file."""
    return _attempt(task, task.load)


def content_hash(data: bytes) -> bytes:
    """Return 16 bytes of SHA-256 over the decoder's version and a file's bytes.

    Other pixels of the same bytes are another content. SHA-256 is faster here than BLAKE2b: processors have
    instructions for it.
    """
    digest = hashlib.sha256(b"%d\0" % DECODER_VERSION)
    digest.update(data)
    return digest.digest()[:CONTENT_HASH_BYTES]


def _attempt(task: DecodeTask, step: Callable[[], T]) -> T | Rejected:
    try:
        return step()
    except BucketUnavailable:  # it would reject all further images
        raise
    except LookalikeError as error:
        return Rejected(task, error)
    except Exception as error:  # an odd image that trips Pillow or a codec must not stop the other millions
        return Rejected(task, ImageUndecodable(f"{type(error).__name__}: {error}"))
