"""The states of a hosted collection, and the events that lead from one to another.

              OPENED   REFUSED  VANISHED  RESTORED  RELEASED
    CLOSED    SERVING  FAILED   FAILED    -         CLOSED
    FAILED    SERVING  FAILED   FAILED    -         CLOSED
    SERVING   SERVING  STALE    DETACHED  -         CLOSED
    STALE     SERVING  STALE    DETACHED  SERVING   CLOSED
    DETACHED  SERVING  STALE    DETACHED  SERVING   CLOSED

`-` marks an event that cannot happen in a state; it raises. Opening a version is not a state: it runs during any of
them, one opening at a time in the whole service, and ends with OPENED, REFUSED or VANISHED.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """What a collection serves, and what became of its newest version."""

    CLOSED = auto()
    """No version serves: not opened yet, or evicted. The next query opens one."""
    FAILED = auto()
    """No version serves: the newest was refused."""
    SERVING = auto()
    """A version serves, and nothing is wrong with the collection."""
    STALE = auto()
    """A version serves, and opening the newest one was refused."""
    DETACHED = auto()
    """A version serves from memory and from mapped files: `CURRENT` names none."""

    @property
    def serves(self) -> bool:
        """Whether a version answers queries."""
        return self in (State.SERVING, State.STALE, State.DETACHED)

    @property
    def has_failure(self) -> bool:
        """Whether the newest version is not served, which `/v1/collections` explains."""
        return self in (State.FAILED, State.STALE, State.DETACHED)


class Event(Enum):
    """What can happen to a collection."""

    OPENED = auto()
    """A version was opened and its first queries passed."""
    REFUSED = auto()
    """The version that `CURRENT` names could not be opened."""
    VANISHED = auto()
    """`CURRENT` names no version: the folder is missing or can't be read."""
    RESTORED = auto()
    """`CURRENT` names the version that serves, after another one was refused or the folder had vanished."""
    RELEASED = auto()
    """The collection was evicted, or removed from the service."""


class InvalidTransition(RuntimeError):
    """An event that cannot happen in a state: a programming error."""


TRANSITIONS = {
    (State.CLOSED, Event.OPENED): State.SERVING,
    (State.CLOSED, Event.REFUSED): State.FAILED,
    (State.CLOSED, Event.VANISHED): State.FAILED,
    (State.CLOSED, Event.RELEASED): State.CLOSED,
    (State.FAILED, Event.OPENED): State.SERVING,
    (State.FAILED, Event.REFUSED): State.FAILED,
    (State.FAILED, Event.VANISHED): State.FAILED,
    (State.FAILED, Event.RELEASED): State.CLOSED,
    (State.SERVING, Event.OPENED): State.SERVING,
    (State.SERVING, Event.REFUSED): State.STALE,
    (State.SERVING, Event.VANISHED): State.DETACHED,
    (State.SERVING, Event.RELEASED): State.CLOSED,
    (State.STALE, Event.OPENED): State.SERVING,
    (State.STALE, Event.REFUSED): State.STALE,
    (State.STALE, Event.VANISHED): State.DETACHED,
    (State.STALE, Event.RESTORED): State.SERVING,
    (State.STALE, Event.RELEASED): State.CLOSED,
    (State.DETACHED, Event.OPENED): State.SERVING,
    (State.DETACHED, Event.REFUSED): State.STALE,
    (State.DETACHED, Event.VANISHED): State.DETACHED,
    (State.DETACHED, Event.RESTORED): State.SERVING,
    (State.DETACHED, Event.RELEASED): State.CLOSED,
}


def next_state(state: State, event: Event) -> State:
    """Return the state that an event leads to.

    Raises:
        InvalidTransition: the event cannot happen in this state.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InvalidTransition(f"{event.name} cannot happen in state {state.name}") from None
