"""What the items of one client must be: after each acknowledged write, and after one whose response was lost."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lookalike.types import Float16
from lookalike.writes.entries import merged
from lookalike.writes.etag import etag

_KEPT_LINES = 30


@dataclass(frozen=True, eq=False)
class ItemState:
    """An item as one write leaves it.

    Attributes:
        record: metadata with the id.
        vector: (d,) as stored.
        thumbnail: image bytes; None without one.
        tag: the ETag.
    """

    record: Mapping[str, Any]
    vector: Float16
    thumbnail: bytes | None
    tag: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", etag(self.record, self.vector))

    @property
    def metadata(self) -> dict[str, Any]:
        """The record without the id."""
        return {name: value for name, value in self.record.items() if name != "id"}

    def patched(self, changes: Mapping[str, Any]) -> ItemState:
        """Return the item after a merge patch."""
        record = dict(self.record)
        for name, value in changes.items():
            after = merged(record.get(name), value)
            if after is None:
                record.pop(name, None)
            else:
                record[name] = after
        return ItemState(record, self.vector, self.thumbnail)


States = dict[str, ItemState | None]


@dataclass(eq=False)
class ClientModel:
    """The items that one client alone writes to.

    Attributes:
        client: the client's name.
        states: what each item must be, None for no item.
        lost: what the write whose response was lost would have made of its items; empty if none was lost.
        touched: ids that were written to since the last check.
        acknowledged: number of acknowledged writes.
        unknown: number of writes whose response was lost.
        applied: number of those that turned out to have taken effect.
    """

    client: str
    states: States
    lost: States = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    acknowledged: int = 0
    unknown: int = 0
    applied: int = 0
    _history: dict[str, deque[str]] = field(default_factory=dict)

    def acknowledge(self, changes: States, what: str) -> None:
        """Record a write whose response arrived."""
        self.acknowledged += 1
        self.states.update(changes)
        self._note(changes, f"acknowledged: {what}")

    def lose(self, changes: States, what: str) -> None:
        """Record a write whose response did not arrive."""
        self.unknown += 1
        self.lost = {item_id: state for item_id, state in changes.items() if tag(state) != tag(self.states[item_id])}
        self._note(changes, f"response lost: {what}")

    def possible(self, item_id: str) -> list[ItemState | None]:
        """Return what an item may be."""
        states = [self.states[item_id]]
        return [*states, self.lost[item_id]] if item_id in self.lost else states

    def settle(self, found: Mapping[str, str | None]) -> str | None:
        """Decide from the ETags found, None for no item, whether the lost write took effect.

        Returns:
            What is wrong if it did for some of its items only, else None.
        """
        effects = {item_id: found[item_id] == tag(state) for item_id, state in self.lost.items()}
        if len(set(effects.values())) > 1:
            return f"one write took effect on some of its items only: {effects}"
        if effects and all(effects.values()):
            self.applied += 1
            self.states.update(self.lost)
        self._note(self.lost, f"after the restart: {'done' if any(effects.values()) else 'not done'}")
        self.lost = {}
        return None

    def history(self, item_id: str) -> str:
        """Return what was done to an item, the last lines."""
        return "\n".join(f"    {line}" for line in self._history.get(item_id, ())) or "    (never written)"

    def _note(self, changes: States, what: str) -> None:
        for item_id, state in changes.items():
            self.touched.add(item_id)
            now = "no item" if state is None else f"{state.tag} {json.dumps(state.metadata, ensure_ascii=False)}"
            self._history.setdefault(item_id, deque(maxlen=_KEPT_LINES)).append(f"{what} -> {now}")


def tag(state: ItemState | None) -> str | None:
    """Return the ETag of an item, None for no item."""
    return None if state is None else state.tag
