"""The back-off policy: when a collection that could not be opened is opened again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off: each further failure doubles the delay, a success resets it.

    A fault of the collection's own files is permanent: its version is not retried until the files have changed. Any
    other failure, such as a full disk, may pass.

    Attributes:
        first_seconds: delay after the first failure.
        max_seconds: the longest delay.
        clock: returns monotonic seconds.
    """

    first_seconds: float = 5.0
    max_seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row, at least one."""
        return min(self.first_seconds * 2.0 ** min(failures - 1, _MAX_DOUBLINGS), self.max_seconds)

    def retry_at(self, failures: int, *, permanent: bool) -> float:
        """Return the time of the next attempt after so many failures in a row; infinity if the fault is permanent."""
        return math.inf if permanent else self.clock() + self.delay(failures)

    def is_waiting(self, retry_at: float) -> bool:
        """Return whether the time of the next attempt has not come yet."""
        return self.clock() < retry_at
