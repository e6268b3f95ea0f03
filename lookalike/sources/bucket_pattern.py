"""Glob patterns of keys in a bucket: as in a shell, `*` and `?` stay within a part, and `**` stands for any parts."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """A pattern below a folder.

    >>> pattern = KeyPattern.parse("sets/part-*/**/*.jpg")
    >>> pattern.folder, pattern.fixed, pattern.matches("part-1/a/b.jpg"), pattern.matches("part-1/b.png")
    ('sets/', 'part-', True, False)

    Attributes:
        folder: what is above the pattern, `""` or ending in a slash.
        parts: of the pattern, below the folder.
    """

    folder: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> KeyPattern:
        """Return the pattern that a key with wildcards is."""
        parts = text.split("/")
        above = next(i for i, part in enumerate(parts) if glob.has_magic(part) or i == len(parts) - 1)
        return cls("".join(f"{part}/" for part in parts[:above]), tuple(parts[above:]))

    @property
    def fixed(self) -> str:
        """The start of all keys that match, and of those beside them, below the folder."""
        first = self.parts[0]
        fixed = first[: next((i for i, character in enumerate(first) if character in "*?["), len(first))]
        name, dot, _ = fixed.partition(".")
        return name + dot if len(self.parts) == 1 else fixed  # with the captions beside an image

    def matches(self, relative: str) -> bool:
        """Return whether a key below the folder matches."""
        return _matches(relative.split("/"), self.parts)


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**" and len(parts) > 1:
        return any(_matches(names[i:], parts[1:]) for i in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _matches(names[1:], parts[1:])
