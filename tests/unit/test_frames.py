"""An error lets go of what was worked on when it happened."""

from __future__ import annotations

import weakref

from app.frames import without_frames


class Picture:
    """Is held by frames."""


def _failed(held: list[weakref.ref[Picture]]) -> ExceptionGroup[Exception]:
    """A group of an error that came of another, each of which went through a frame with a picture."""

    def decode() -> None:
        picture = Picture()
        held.append(weakref.ref(picture))
        raise ValueError("broken")

    def search() -> None:
        picture = Picture()
        held.append(weakref.ref(picture))
        try:
            decode()
        except ValueError as error:
            raise RuntimeError("not found") from error

    found: list[Exception] = []
    try:
        search()
    except RuntimeError as error:
        found.append(error)
    try:
        raise ExceptionGroup("all", found)  # outside of the handler: nothing but the group leads to what it holds
    except ExceptionGroup as group:
        return group


def test_frames_of_causes_and_of_a_groups_errors_are_let_go() -> None:
    held: list[weakref.ref[Picture]] = []
    error = _failed(held)
    assert all(each() is not None for each in held)
    without_frames(error)
    assert [each() for each in held] == [None, None]
    assert str(error.exceptions[0].__cause__) == "broken"
