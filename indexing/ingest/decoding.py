"""The work of the decode threads on one item: pixels and thumbnail, a known image, or the error for `rejected.parquet`.

The file's bytes are hashed before they are decoded. An image that was encoded before, under another name or time, is
recognised by this hash and copied instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from indexing.ingest.content_index import ContentIndex
from indexing.ingest.shards import EncodedRow
from lookalike.encoders.protocol import Encoder
from lookalike.errors import BucketUnavailable, ImageUndecodable, LookalikeError
from lookalike.prepared_image import PreparedImage, content_hash, prepare

T = TypeVar("T")


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
        image: what is stored of it, and what the encoder takes.
    """

    task: DecodeTask
    image: PreparedImage


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
        return Decoded(task, prepare(data, self.encoder, self.max_pixels, known_hash=content))


def read(task: DecodeTask) -> bytes | Rejected:
    """Return the bytes of an item's file."""
    return _attempt(task, task.load)


def _attempt(task: DecodeTask, step: Callable[[], T]) -> T | Rejected:
    try:
        return step()
    except BucketUnavailable:  # it would reject all further images
        raise
    except LookalikeError as error:
        return Rejected(task, error)
    except Exception as error:  # an odd image that trips Pillow or a codec must not stop the other millions
        return Rejected(task, ImageUndecodable(f"{type(error).__name__}: {error}"))
