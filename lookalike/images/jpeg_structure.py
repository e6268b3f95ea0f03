"""The scans of a JPEG, found by its markers, and how much of a truncated one is there (ITU-T T.81, annexes B and F)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from lookalike.errors import ImageUndecodable
from lookalike.types import UInt8

END_MARKER = b"\xff\xd9"
MIN_PRESENT = 0.5
"""Fraction of a truncated sequential JPEG below which it is rejected."""

_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
"""A marker; `FF 00` is a byte of data, and restart markers stand within data."""
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_MIN_LENGTHS = {0xDA: 6, 0xD9: 0, **dict.fromkeys(_FRAME_MARKERS, 8)}
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01
_FILLER = bytes(range(1, 255, 3)) * 4
"""Bytes that decode to something else than nothing."""


class Scan(NamedTuple):
    """One scan: how many components it holds, where its data ends, and whether a marker follows."""

    components: int
    end: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame header.

    Attributes:
        progressive: whether scans refine each other.
        components: of the image: 1, 3 or 4.
        scan_header: where the first scan's header begins.
        scan_components: how many components the first scan holds.
    """

    progressive: bool
    components: int
    scan_header: int
    scan_components: int

    @property
    def several_scans(self) -> bool:
        """Whether a decoder holds the coefficients of the whole image, whatever the size at which it decodes."""
        return self.progressive or self.scan_components < self.components


class _Segment(NamedTuple):
    marker: int
    start: int
    body: int
    whole: bool


def read_frame(data: bytes) -> Frame | None:
    """Return the frame header, None where the first scan is not reached."""
    progressive, components = False, 0
    for segment in _segments(data, 2):
        if not segment.whole:
            return None
        if segment.marker in _FRAME_MARKERS:
            progressive, components = segment.marker in _PROGRESSIVE, data[segment.body + 5]
        elif segment.marker == _START_OF_SCAN:
            return Frame(progressive, components, segment.start, data[segment.body])
    return None


def complete(data: bytes) -> bytes:
    """Return a truncated JPEG up to its last data, with an end marker.

    Raises:
        ImageUndecodable: an end marker is there already; no scan of a progressive JPEG is complete; or less than half
            of a sequential one is there.
    """
    frame = read_frame(data)
    scans, ended = _scans(data, frame) if frame else ([], False)
    if frame is None or not scans or ended:
        raise ImageUndecodable("corrupt JPEG image")
    end = scans[-1].end
    body = data[: end - 1] if data[end - 1 : end] == b"\xff" else data[:end]
    if frame.several_scans:
        whole = [scan.components for scan in scans if scan.complete]
        present = float(bool(whole)) if frame.progressive else sum(whole) / frame.components
    else:
        present = fraction_present(body)
    require_enough(present, frame)
    return body + END_MARKER


def require_enough(present: float, frame: Frame) -> None:
    """Raise ImageUndecodable unless enough of a truncated JPEG is there."""
    if frame.progressive and present < 1:
        raise ImageUndecodable("truncated JPEG image: its first scan is incomplete; fetch or export it again")
    if present < MIN_PRESENT:
        raise ImageUndecodable(
            f"truncated JPEG image: {present:.0%} of it is there, and at least half must be; fetch or export it again"
        )


def first_scan(data: bytes, frame: Frame) -> bytes:
    """Return the file up to the end of the first scan's data."""
    scans, _ = _scans(data, frame, limit=1)
    return data[: scans[0].end]


def fraction_present(body: bytes) -> float:
    """Return how much of the image the data of one scan describes: 1.0 for all.

    A decoder leaves blocks grey that it has no data for. More bytes at the end change these blocks, and only these:
    bytes after a complete scan are skipped. So the first block that differs is where the data ends.

    Args:
        body: the file up to the end of the scan's data.
    """
    restarts = max((body.rfind(bytes((0xFF, 0xD0 + number))), number) for number in range(8))
    restart = 0xD0 + (restarts[1] + 1) % 8 if restarts[0] >= 0 else 0xD0
    short = _smallest(body + END_MARKER)
    longer = _smallest(body + _FILLER + bytes((0xFF, restart)) + _FILLER + END_MARKER)
    rows, columns = (short != longer).any(axis=2).nonzero()
    if not len(rows):
        return 1.0
    height, width = short.shape[:2]
    return float((rows[0] + columns[0] / width) / height)


def _smallest(data: bytes) -> UInt8:
    """Return (height / 8, width / 8, channels) pixels: one for each block."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    image.draft(None, (1, 1))
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def _scans(data: bytes, frame: Frame, limit: int | None = None) -> tuple[list[Scan], bool]:
    """Return the first scans, and whether the end marker was reached."""
    scans: list[Scan] = []
    components = 0  # of the scan whose data is being passed over
    for segment in _segments(data, frame.scan_header):
        if components:
            scans.append(Scan(components, segment.start, True))
            components = 0
        if len(scans) == limit or segment.marker == _END_OF_IMAGE:
            return scans, segment.marker == _END_OF_IMAGE
        if segment.marker == _START_OF_SCAN and segment.whole:
            components = data[segment.body]
    if components:
        scans.append(Scan(components, len(data), False))
    return scans, False


def _segments(data: bytes, start: int) -> Iterator[_Segment]:
    """Yield the marker segments from `start` on, passing over data between them; only the last may be cut."""
    while found := _MARKER.search(data, start):
        marker, body = found[1][0], found.end()
        if marker in (_START_OF_IMAGE, _TEMPORARY):
            start = body
            continue
        length = 0 if marker == _END_OF_IMAGE else int.from_bytes(data[body : body + 2], "big")
        whole = body + max(length, _MIN_LENGTHS.get(marker, 2)) <= len(data)
        yield _Segment(marker, found.start(), body + 2, whole)
        if marker == _END_OF_IMAGE or not whole:
            return
        start = body + length
