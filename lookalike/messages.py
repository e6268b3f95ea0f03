"""Parts of error messages: values of bounded length, and the known name that a misspelt one resembles."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from lookalike.errors import MAX_VALUE_CHARACTERS


def quoted(value: object) -> str:
    """Return a value's `repr` of at most 200 characters, for a message.

    >>> quoted("brand")
    "'brand'"
    >>> quoted("b" * 500)[-30:]
    'bb ... 402 characters left out'
    """
    text = repr(value)
    if len(text) <= MAX_VALUE_CHARACTERS:
        return text
    shown = MAX_VALUE_CHARACTERS // 2
    return f"{text[:shown]} ... {len(text) - shown:,} characters left out"


def cut(text: str) -> str:
    """Return a text of at most 200 characters: of a longer one, its start and its end.

    >>> cut("long path/" * 50)[95:120]
    'path/ ... path/long path/'
    """
    if len(text) <= MAX_VALUE_CHARACTERS:
        return text
    shown = MAX_VALUE_CHARACTERS // 2
    return f"{text[:shown]} ... {text[-shown + 5 :]}"


def listed(names: Sequence[str]) -> str:
    """Return names separated by commas; the first ones of a list of more than 200 characters.

    >>> listed(["a", "b"])
    'a, b'
    >>> listed(["column"] * 100)[-32:]
    'lumn, column, column and 75 more'
    """
    shown: list[str] = []
    for name in names:
        if shown and sum(map(len, shown)) + 2 * len(shown) + len(name) > MAX_VALUE_CHARACTERS:
            return f"{', '.join(shown)} and {len(names) - len(shown):,} more"
        shown.append(name)
    return ", ".join(shown)


def number_of(count: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless the number is 1.

    >>> number_of(1, "image"), number_of(2_000, "image")
    ('1 image', '2,000 images')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """Return the message about an unknown name: what it is, the known name that resembles it most, and all known ones.

    >>> unknown_name("query parameter", "lmit", ["limit", "filter"])
    "unknown query parameter 'lmit'; did you mean 'limit'? Known: filter, limit"
    >>> unknown_name("query parameter", "lmit", [])
    "unknown query parameter 'lmit'"
    """
    if not known:
        return f"unknown {kind} {quoted(name)}"
    close = difflib.get_close_matches(name, known, 1) if len(name) <= MAX_VALUE_CHARACTERS else []
    suggestion = f"did you mean {close[0]!r}? Known: " if close else "known: "
    return f"unknown {kind} {quoted(name)}; {suggestion}{', '.join(sorted(known))}"
