"""Ids of items that are written: those that every endpoint and every proxy can carry."""

from __future__ import annotations

import re
import unicodedata

from lookalike.errors import IdInvalid

MAX_ID_BYTES = 1_024
_PARTS = ("thumbnail", "original")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def valid_id(text: str) -> str:
    """Return the id of a new item, composed (Unicode's NFC) as the indexing job's ids are.

    Raises:
        IdInvalid: it is empty or too long, has a control character or a lone surrogate, ends in `/thumbnail` or
            `/original`, or has an empty, `.` or `..` segment.
    """
    if not text:
        raise IdInvalid("the id is empty; give the item a name such as shoes/red.jpg")
    try:
        composed = unicodedata.normalize("NFC", text)
        size = len(composed.encode())
    except UnicodeEncodeError as error:
        raise IdInvalid(f"the id {text!r} is not valid Unicode at position {error.start}") from error
    if size > MAX_ID_BYTES:
        raise IdInvalid(f"the id {text!r} has {size:,} bytes; it may have at most {MAX_ID_BYTES:,}")
    if control := _CONTROL.search(composed):
        raise IdInvalid(f"the id {text!r} has the control character {control[0]!a}; remove it")
    if (last := composed.rpartition("/")[2]) in _PARTS:
        raise IdInvalid(f"the id {text!r} ends in /{last}, which is the path of {last}s; choose another name")
    for segment in composed.split("/"):
        if segment in ("", ".", ".."):
            raise IdInvalid(f"the id {text!r} has the segment {segment!r}; proxies remove it; choose another name")
    return composed
