"""The boxes of JPEG 2000, HEIF and AVIF files (ISO/IEC 15444-1, annex I; ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def read_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of each box before the one that reaches to the end of the file, or has a 64-bit size."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield kind, data[at + 8 : at + size]
        at += size
