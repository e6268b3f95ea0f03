"""Who is let in under load: queries whose expected wait is bearable, and none of the others.

A query's wait is the number of those before it times the mean time between two completions (Little 1961), measured
over the last completions of its kind. Time in which nothing of the kind was under way does not count, so that a quiet
hour does not look like a slow service. It knows nothing of HTTP; `app.middleware.admission` asks it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from app.errors import Overloaded

_REMEMBERED = 64
"""Completions that the mean is taken over: several batches."""
_AT_FIRST = 64
"""Queries let in whatever their wait until as many have ended as the mean is taken over: the first may have taken long
for reasons of its own."""


class AdmissionControllers:
    """A gate for each kind of query: a text costs a fraction of what an image costs.

    `read` is what items and thumbnails pass.
    """

    def __init__(self, max_wait: float) -> None:
        """As `Gate` has it."""
        self.by_kind = {kind: AdmissionController(max_wait) for kind in ("image", "text", "item", "pair", "read")}

    def __getitem__(self, kind: str) -> AdmissionController:
        return self.by_kind[kind]


class AdmissionController:
    """Lets queries of one kind in. Lives on the event loop's thread.

    Attributes:
        in_flight: queries that entered and have not left.
        refused: queries that were not let in, since the start.
    """

    def __init__(self, max_wait: float, clock: Callable[[], float] = time.monotonic) -> None:
        """From the longest bearable wait, seconds."""
        self.in_flight = 0
        self.refused = 0
        self._max_wait = max_wait
        self._clock = clock
        self._intervals: deque[float] = deque(maxlen=_REMEMBERED)
        self._since = 0.0  # the last completion

    def expected_wait(self) -> float:
        """Seconds until a query that came now would be answered; 0 where none is before it."""
        if not self._intervals:
            return 0.0
        return self.in_flight * self._mean()

    def admit(self) -> None:
        """Refuses a query that would wait too long.

        Raises:
            Overloaded: says when to come again.
        """
        wait = self.expected_wait()
        unknown = len(self._intervals) < _REMEMBERED
        if unknown and (self.in_flight < _AT_FIRST or 0.0 < wait <= self._max_wait):
            return
        if unknown or wait > self._max_wait:
            self.refused += 1
            how_long = "nobody knows yet how long" if unknown else f"for about {wait:.1f} s"
            raise Overloaded(
                f"{self.in_flight:,} queries are waiting, {how_long}; come again as Retry-After says",
                1 if unknown else max(1, math.ceil(wait - self._max_wait)),
            )

    def acquire(self) -> float:
        """A query begins; it must leave, with what this returns."""
        self.in_flight += 1
        return self._clock()

    def release(self, entered: float, *, worked: bool, faulty: bool = False) -> None:
        """A query ended.

        Args:
            entered: as `enter` said.
            worked: whether it took its turn, and did not give up waiting for it.
            faulty: it ended for a fault of its own. That tells nothing of the speed where it was seen at once, and as
                much as any other where it took a query's time, as an image that is broken at its end does.
        """
        self.in_flight -= 1
        now = self._clock()
        if faulty:
            worked = worked and bool(self._intervals) and now - entered >= self._mean()
        if worked:
            self._intervals.append(now - max(self._since, entered))
            self._since = now

    def _mean(self) -> float:
        return sum(self._intervals) / len(self._intervals)
