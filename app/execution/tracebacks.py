"""Errors without the frames they went through, which hold what was worked on, and now and then the error itself."""

from __future__ import annotations


def clear_traceback(error: BaseException) -> None:
    """Has an error, and those it came of or consists of, let go of their frames. A traceback told later is empty."""
    links: list[BaseException | None] = [error]
    while links:
        link = links.pop()
        if link is not None and link.__traceback__ is not None:
            link.__traceback__ = None
            links += [link.__cause__, link.__context__]
            if isinstance(link, BaseExceptionGroup):
                links += link.exceptions
