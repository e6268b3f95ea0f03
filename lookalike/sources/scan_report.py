"""What a source holds besides items: skipped files, excluded paths, and folders that can't be listed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ScanReport:
    """What a source holds besides items.

    Attributes:
        skipped: extension in lower case -> number of files that are no images; `""` for no extension.
        excluded: pattern -> number of files and folders that it excludes; nothing is counted below such a folder.
        unlisted: ids of the folders that can't be listed, each with a slash at its end.
        left_out: column of a table -> what it holds, for those that are no metadata, such as a second image.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    unlisted: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, other: ScanReport) -> None:
        """Add the counts of another source."""
        self.skipped += other.skipped
        self.excluded += other.excluded
        self.unlisted += other.unlisted
        self.left_out |= other.left_out
