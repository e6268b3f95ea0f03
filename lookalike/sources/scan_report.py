"""What a source holds besides items: skipped files, excluded paths, and what can't be reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lookalike.messages import listed

MAX_LISTED = 8
"""Extensions and patterns that a message lists."""


@dataclass(slots=True)
class ScanReport:
    """What a source holds besides items.

    Attributes:
        skipped: extension in lower case -> number of files that are no images; `""` for no extension.
        excluded: pattern -> number of files and folders that it excludes; nothing is counted below such a folder.
        unlisted: folders that can't be listed or entered, each with a slash at its end.
        unread: tars and tables that can't be read now.
        left_out: column of a table -> what it holds, for those that are no metadata, such as a second image.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    unlisted: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, other: ScanReport) -> None:
        """Add the counts of another source."""
        self.skipped += other.skipped
        self.excluded += other.excluded
        self.unlisted += other.unlisted
        self.unread += other.unread
        self.left_out |= other.left_out


def counted(counts: Mapping[str, int]) -> str:
    """Return counts in words, the largest first; those after the first MAX_LISTED are summed.

    >>> counted({".mov": 212, ".xmp": 14, "": 2})
    '212 .mov, 14 .xmp, 2 without extension'
    """
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], not entry[0], entry[0]))
    first = [f"{count:,} {name or 'without extension'}" for name, count in ordered[:MAX_LISTED]]
    rest = sum(count for _, count in ordered[MAX_LISTED:])
    return ", ".join([*first, f"{rest:,} others"] if rest else first)


def no_images(sources: Sequence[str], report: ScanReport) -> str:
    """Return the message about sources without images: what they hold instead.

    >>> no_images(["photos"], ScanReport(Counter({".mov": 212, ".xmp": 14})))
    'no images found in photos: 212 .mov, 14 .xmp'
    """
    parts = [counted(report.skipped)] if report.skipped else []
    if report.excluded:
        parts.append(f"{report.excluded.total():,} excluded ({counted(report.excluded)})")
    return f"no images found in {listed(sources)}" + (f": {'; '.join(parts)}" if parts else "; is its drive mounted?")
