"""Text queries in one form, whichever way they were typed."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"
"""Format characters that change what is written: emoji and words of some scripts are joined by them."""
_TAGS = range(0xE0020, 0xE0080)
"""Format characters that flags of regions consist of."""


def normalize_text(text: str) -> str:
    r"""Return a text in NFKC, without control and invisible characters, with single spaces between its words.

    Joiners and tags within emoji stay. A text that has nothing else becomes empty.

    >>> normalize_text(" cafe\N{COMBINING ACUTE ACCENT}\n  \N{LATIN SMALL LIGATURE FL}at\N{ZERO WIDTH SPACE} ")
    'café flat'
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    spaced = " ".join(unicodedata.normalize("NFKC", text).split())
    words = "".join(character for character in spaced if not _is_invisible(character)).split()
    return "" if all(unicodedata.category(character) == "Cf" for character in "".join(words)) else " ".join(words)


def _is_invisible(character: str) -> bool:
    category = unicodedata.category(character)
    return category == "Cc" or (category == "Cf" and character not in _JOINERS and ord(character) not in _TAGS)
