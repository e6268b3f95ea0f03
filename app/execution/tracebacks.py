"""Removal of tracebacks, whose frames keep images and sometimes the error itself in memory."""

from __future__ import annotations


def clear_traceback(error: BaseException) -> None:
    """Remove the tracebacks of an error, its causes and its group's errors."""
    errors: list[BaseException | None] = [error]
    while errors:
        current = errors.pop()
        if current is not None and current.__traceback__ is not None:
            current.__traceback__ = None
            errors += [current.__cause__, current.__context__]
            if isinstance(current, BaseExceptionGroup):
                errors += current.exceptions
