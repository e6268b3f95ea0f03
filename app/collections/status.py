"""The status of a hosted collection: its state, the version that serves, and the version that was refused.

The records are immutable. An event replaces the status as a whole, so that no reader sees half of a change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.collections.state import Event, State, next_state

if TYPE_CHECKING:
    from app.collections.versions import Fingerprint
    from app.collections.writes import CollectionWrites
    from app.execution.pipeline import QueryPipeline


@dataclass(frozen=True, slots=True)
class OpenVersion:
    """A version that answers queries.

    Attributes:
        name: the version's name.
        opened: answers queries against it alone.
        size_bytes: of its files.
        writes: to the collection; None if the service does not write to it.
    """

    name: str
    opened: QueryPipeline
    size_bytes: int
    writes: CollectionWrites | None = None

    @property
    def pipeline(self) -> QueryPipeline:
        """The pipeline that answers queries, over what was written since the version was built, too."""
        return self.opened if self.writes is None else self.writes.pipeline


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the newest version does not serve, and when it is tried again.

    Attributes:
        code: of the error that was the reason. The error itself is not kept: its traceback holds the opened files.
        detail: the error's message.
        version: the version's name; empty if `CURRENT` names none.
        files: fingerprint of the version's files before it was opened.
        last_files: their fingerprint at the last check.
        failures: attempts that failed in a row.
        retry_at: monotonic time of the next attempt while the files are unchanged; infinity for never.
    """

    code: str
    detail: str
    version: str = ""
    files: Fingerprint = ()
    last_files: Fingerprint = ()
    failures: int = 0
    retry_at: float = 0.0

    def __str__(self) -> str:
        return f"{self.detail} [{self.code}]"

    def is_replaced_by(self, files: Fingerprint) -> bool:
        """Return whether the files differ from the refused ones, and have not changed since the last look."""
        return self.last_files == files != self.files


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a collection at one moment.

    Attributes:
        state: decides which of the other records are present.
        serving: the version that answers queries; present while `state.serves`.
        refusal: of the newest version; present while `state.has_failure`.
        swaps: versions replaced by others so far.
    """

    state: State = State.CLOSED
    serving: OpenVersion | None = None
    refusal: Refusal | None = None
    swaps: int = 0

    @property
    def version(self) -> str:
        """The version that serves; empty if none does."""
        return self.serving.name if self.serving else ""

    @property
    def failures(self) -> int:
        """Attempts to open the newest version that failed in a row."""
        return self.refusal.failures if self.refusal else 0

    def opened(self, version: OpenVersion) -> Status:
        """Return the status once a version has taken its place."""
        swapped = self.version not in ("", version.name)
        return Status(next_state(self.state, Event.OPENED), version, None, self.swaps + swapped)

    def refused(self, refusal: Refusal) -> Status:
        """Return the status once a version was refused, or `CURRENT` was found to name none."""
        event = Event.REFUSED if refusal.version else Event.VANISHED
        return replace(self, state=next_state(self.state, event), refusal=refusal)

    def restored(self) -> Status:
        """Return the status once `CURRENT` names the version that serves again."""
        return replace(self, state=next_state(self.state, Event.RESTORED), refusal=None)

    def released(self) -> Status:
        """Return the status once the collection was evicted or removed."""
        return Status(next_state(self.state, Event.RELEASED), swaps=self.swaps)
