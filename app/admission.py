"""Admission control: queries whose expected wait is acceptable, and no others.

The expected wait is the number of queries in flight times the mean time between two completions (Little 1961), over
the last completions of the same kind. Time with nothing in flight does not count, so that an idle hour does not look
like a slow service.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, get_args

from app.errors import Overloaded

RequestKind = Literal["image", "text", "item", "pair", "read", "write"]
"""Kinds of requests: a text costs a fraction of what an image costs. `read` is for items, thumbnails, fields and
counts; `write` is for writes that encode no image."""

_MEAN_OVER = 64
"""Completions that the mean is taken over: several batches."""
_MIN_ADMITTED = 64
"""Queries in flight that are admitted before `_MEAN_OVER` have completed: the first one may be slow for reasons of its
own, such as a library that is loaded."""


class AdmissionControllers:
    """A controller for each kind of request."""

    def __init__(self, max_wait: float) -> None:
        """`max_wait` is the longest acceptable wait, seconds."""
        self.by_kind: dict[RequestKind, AdmissionController] = {
            kind: AdmissionController(max_wait) for kind in get_args(RequestKind)
        }

    def __getitem__(self, kind: RequestKind) -> AdmissionController:
        return self.by_kind[kind]


class AdmissionController:
    """Admits requests of one kind. Lives on the event loop's thread.

    Attributes:
        in_flight: requests that were acquired and not released.
        refused: requests that were refused since the start.
    """

    def __init__(self, max_wait: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`max_wait` is the longest acceptable wait, seconds."""
        self.in_flight = 0
        self.refused = 0
        self._max_wait = max_wait
        self._clock = clock
        self._intervals: deque[float] = deque(maxlen=_MEAN_OVER)
        self._last_completion = 0.0

    def expected_wait(self) -> float:
        """Return the seconds that a new query would wait; 0 with nothing in flight."""
        if not self._intervals:
            return 0.0
        return self.in_flight * self._mean()

    def admit(self) -> None:
        """Refuse a query that would wait too long.

        Raises:
            Overloaded: with the seconds after which a retry makes sense.
        """
        wait = self.expected_wait()
        unknown = len(self._intervals) < _MEAN_OVER
        if unknown and (self.in_flight < _MIN_ADMITTED or 0.0 < wait <= self._max_wait):
            return
        if unknown or wait > self._max_wait:
            self.refused += 1
            expected = "an unknown time" if unknown else f"about {wait:.1f} s"
            seconds = 1 if unknown else max(1, math.ceil(wait - self._max_wait))
            raise Overloaded(
                f"{self.in_flight:,} queries are in flight; this one would wait {expected}; retry in {seconds} s",
                seconds,
            )

    def acquire(self) -> float:
        """Count a request as in flight; return the time, which `release` takes."""
        self.in_flight += 1
        return self._clock()

    def release(self, acquired: float, *, completed: bool, client_error: bool = False) -> None:
        """Count a request as no longer in flight.

        Args:
            acquired: the time that `acquire` returned.
            completed: whether it was processed, and not given up while it waited.
            client_error: whether the request was invalid. A fault that is found immediately does not measure the
                speed. One that took as long as other queries does, such as an image that is broken at its end.
        """
        self.in_flight -= 1
        now = self._clock()
        if client_error:
            completed = completed and bool(self._intervals) and now - acquired >= self._mean()
        if completed:
            self._intervals.append(now - max(self._last_completion, acquired))
            self._last_completion = now

    def _mean(self) -> float:
        return sum(self._intervals) / len(self._intervals)
