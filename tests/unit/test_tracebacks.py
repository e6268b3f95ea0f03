"""Clearing an error's tracebacks releases the objects that their frames hold."""

from __future__ import annotations

import weakref

from app.execution.tracebacks import clear_traceback


class DecodedImage:
    """An object that frames hold."""


def _error_group(references: list[weakref.ref[DecodedImage]]) -> ExceptionGroup[Exception]:
    """Return a group of an error that has a cause; a frame of each holds an image."""

    def decode() -> None:
        image = DecodedImage()
        references.append(weakref.ref(image))
        raise ValueError("broken")

    def search() -> None:
        image = DecodedImage()
        references.append(weakref.ref(image))
        try:
            decode()
        except ValueError as error:
            raise RuntimeError("not found") from error

    errors: list[Exception] = []
    try:
        search()
    except RuntimeError as error:
        errors.append(error)
    try:
        raise ExceptionGroup("all", errors)  # outside of the handler: only the group refers to the errors
    except ExceptionGroup as group:
        return group


def test_frames_of_causes_and_grouped_errors_are_released() -> None:
    references: list[weakref.ref[DecodedImage]] = []
    error = _error_group(references)
    assert all(reference() is not None for reference in references)
    clear_traceback(error)
    assert [reference() for reference in references] == [None, None]
    assert str(error.exceptions[0].__cause__) == "broken"
