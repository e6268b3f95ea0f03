"""An error lets go of what was worked on when it happened."""

from __future__ import annotations

import weakref

from app.execution.tracebacks import clear_traceback


class DecodedImage:
    """Is held by frames."""


def _failed(held: list[weakref.ref[DecodedImage]]) -> ExceptionGroup[Exception]:
    """A group of an error that came of another, each of which went through a frame with an image."""

    def decode() -> None:
        image = DecodedImage()
        held.append(weakref.ref(image))
        raise ValueError("broken")

    def search() -> None:
        image = DecodedImage()
        held.append(weakref.ref(image))
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
    held: list[weakref.ref[DecodedImage]] = []
    error = _failed(held)
    assert all(each() is not None for each in held)
    clear_traceback(error)
    assert [each() for each in held] == [None, None]
    assert str(error.exceptions[0].__cause__) == "broken"
