"""What Pillow leaves out of a JPEG 2000 file: its colour profile (ISO/IEC 15444-1, annex I)."""

from __future__ import annotations

from lookalike.images.boxes import read_boxes

_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_ICC_METHODS = (2, 3)  # a profile of the kinds that the standard admits, and any other


def icc_profile(data: bytes) -> bytes | None:
    """Return the ICC profile of a JP2 file; None if it has none."""
    if not data.startswith(_SIGNATURE):  # a bare codestream
        return None
    headers = (content for kind, content in read_boxes(data) if kind == b"jp2h")
    colors = (content for header in headers for kind, content in read_boxes(header) if kind == b"colr")
    return next((content[3:] for content in colors if content[:1] and content[0] in _ICC_METHODS), None)
