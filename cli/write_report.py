"""What became of the items that a command writes: counted, and printed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import typer

from lookalike.messages import number_of


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What became of one item.

    Attributes:
        id: of the item.
        result: `created`, `replaced`, `deleted`, `skipped` or `failed`.
        code: of the error, for one that failed.
        detail: the error's message.
    """

    id: str
    result: str
    code: str = ""
    detail: str = ""


@dataclass(slots=True)
class WriteReport:
    """Counts of outcomes, and the errors."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: list[WriteOutcome] = field(default_factory=list)

    def add(self, outcome: WriteOutcome) -> None:
        """Count an outcome."""
        self.counts[outcome.result] += 1
        if outcome.result == "failed":
            self.errors.append(outcome)

    @property
    def failed(self) -> int:
        """Number of items that failed."""
        return self.counts["failed"]

    def print_errors(self) -> None:
        """Print a line on stderr for each item that failed."""
        for each in self.errors:
            typer.echo(f"error: {each.id}: {each.detail} [{each.code}]", err=True)

    def as_json(self, names: tuple[str, ...], **more: Any) -> str:
        """Return one line of JSON: the counts, the errors and more members."""
        errors = [{name: value for name, value in asdict(each).items() if name != "result"} for each in self.errors]
        return json.dumps({**{name: self.counts[name] for name in names}, "errors": errors, **more})

    def added(self) -> str:
        """Return the line that counts added items.

        >>> WriteReport(Counter(created=2, replaced=1, failed=1)).added()
        'added 3 images: 2 new, 1 replaced; 1 failed'
        """
        written = self.counts["created"] + self.counts["replaced"]
        parts = [f"{self.counts['created']:,} new", f"{self.counts['replaced']:,} replaced"]
        notes = [f"added {number_of(written, 'image')}" + (f": {', '.join(parts)}" if written else "")]
        if skipped := self.counts["skipped"]:
            notes.append(f"{skipped:,} skipped, whose ids exist")
        if self.failed:
            notes.append(f"{self.failed:,} failed")
        return "; ".join(notes)

    def deleted(self, *, dry_run: bool) -> str:
        """Return the line that counts deleted items.

        >>> WriteReport(Counter(deleted=1)).deleted(dry_run=True)
        '1 item would be deleted'
        """
        count = number_of(self.counts["deleted"], "item")
        line = f"{count} would be deleted" if dry_run else f"deleted {count}"
        return f"{line}; {self.failed:,} failed" if self.failed else line
