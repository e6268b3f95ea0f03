"""The life of a hosted collection: states, transitions, and the facts that follow from them."""

from __future__ import annotations

import itertools
from typing import cast

import pytest

from app.collections import state as state_module
from app.collections.state import TRANSITIONS, Event, InvalidTransition, State, next_state
from app.collections.status import OpenVersion, Refusal, Status
from app.execution.pipeline import QueryPipeline

PAIRS = list(itertools.product(State, Event))


def version(name: str) -> OpenVersion:
    return OpenVersion(name, cast(QueryPipeline, object()), size_bytes=1)


def apply(status: Status, event: Event) -> Status:
    match event:
        case Event.OPENED:
            return status.opened(version("2"))
        case Event.REFUSED:
            return status.refused(Refusal("manifest_invalid", "damaged", version="3"))
        case Event.VANISHED:
            return status.refused(Refusal("collection_not_found", "missing"))
        case Event.RESTORED:
            return status.restored()
        case Event.RELEASED:
            return status.released()


def reachable() -> dict[State, Status]:
    """A status in each state that events lead to from a new collection's."""
    found = {State.CLOSED: Status()}
    while True:
        after = [apply(found[state], event) for state, event in TRANSITIONS if state in found]
        new = {status.state: status for status in after if status.state not in found}
        if not new:
            return found
        found |= new


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_pair_is_in_table_or_raises(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(InvalidTransition, match=f"{event.name} cannot happen in state {state.name}"):
            next_state(state, event)


def test_only_a_failure_under_a_serving_version_is_restored() -> None:
    assert {state for state in State if (state, Event.RESTORED) in TRANSITIONS} == {
        state for state in State if state.serves and state.has_failure
    }
    assert [pair for pair in PAIRS if pair not in TRANSITIONS and pair[1] is not Event.RESTORED] == []


def test_docstring_shows_the_table() -> None:
    lines = (state_module.__doc__ or "").splitlines()
    events, *rows = (line.split() for line in lines if line.startswith("    "))
    shown = {
        (State[row[0]], Event[event]): State[target]
        for row in rows
        for event, target in zip(events, row[1:], strict=True)
        if target != "-"
    }
    assert shown == TRANSITIONS


def test_every_state_is_reachable() -> None:
    assert set(reachable()) == set(State)


@pytest.mark.parametrize("event", Event)
def test_event_moves_a_status_as_the_table_says(event: Event) -> None:
    for state, status in reachable().items():
        if (state, event) in TRANSITIONS:
            assert apply(status, event).state is TRANSITIONS[state, event]
        else:
            with pytest.raises(InvalidTransition):
                apply(status, event)


def test_facts_follow_from_the_state() -> None:
    """Whatever happens: a version is shown while one serves, a failure while the newest one does not."""
    seen = set()
    for events in itertools.product(Event, repeat=4):
        status = Status()
        for event in events:
            if (status.state, event) not in TRANSITIONS:
                break
            status = apply(status, event)
            seen.add(status.state)
            assert bool(status.version) == (status.serving is not None) == status.state.serves
            assert (status.refusal is not None) == status.state.has_failure
            if status.state is State.DETACHED:
                assert status.refusal
                assert not status.refusal.version
            if status.state is State.STALE:
                assert status.refusal
                assert status.refusal.version
    assert seen == set(State)


def test_refused_version_does_not_disturb_the_serving_one() -> None:
    serving = Status().opened(version("1"))
    assert apply(serving, Event.REFUSED).serving is serving.serving
    assert apply(serving, Event.VANISHED).serving is serving.serving


def test_swaps_count_replaced_versions_only() -> None:
    status = Status().opened(version("1"))
    assert status.swaps == 0
    assert status.opened(version("1")).swaps == 0
    swapped = status.opened(version("2"))
    assert swapped.swaps == 1
    reopened = swapped.released().opened(version("3"))
    assert (reopened.swaps, reopened.version) == (1, "3")


def test_refused_files_are_replaced_once_they_are_stable() -> None:
    damaged, partial, whole = ((("vectors.npy", 1, n),) for n in range(3))
    refusal = Refusal("manifest_invalid", "damaged", "3", files=damaged, last_files=damaged)
    assert not refusal.is_replaced_by(damaged)
    assert not refusal.is_replaced_by(partial)
    copying = Refusal("manifest_invalid", "damaged", "3", files=damaged, last_files=partial)
    assert not copying.is_replaced_by(whole)
    assert copying.is_replaced_by(partial)
