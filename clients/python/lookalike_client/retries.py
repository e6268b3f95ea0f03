"""When to send a request again."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx

from lookalike_client.errors import error_of_response, retry_after_of

_STATUSES = frozenset({429, 502, 503, 504})
_FAILURES = (httpx.NetworkError, httpx.RemoteProtocolError)
"""Refused, reset and closed connections. After a timeout the caller has waited long enough."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long to retry calls.

    A call is sent again after status 429, 502, 503 or 504, and after a connection that was refused or reset. It waits
    for the time of `Retry-After`, else for a delay that doubles. A write that can't be repeated is sent again only
    where the first one had no effect: after status 429 or 503, and after a connection that was refused.

    Attributes:
        attempts: number of times to retry; 0 for never.
        first_delay: seconds before the first retry, without `Retry-After`.
        max_delay: longest wait in seconds. Where `Retry-After` is longer, the call fails at once.
    """

    attempts: int = 4
    first_delay: float = 0.2
    max_delay: float = 30.0

    def delay(self, attempt: int, outcome: httpx.Response | httpx.RequestError) -> float | None:
        """Return the seconds to wait after an attempt, from 0, before the next one; None if it was the last."""
        if attempt >= self.attempts or not _is_passing(outcome):
            return None
        delay: float = min(self.first_delay * 2**attempt, self.max_delay)
        if isinstance(outcome, httpx.Response) and (named := retry_after_of(outcome)) is not None:
            if named > self.max_delay:
                return None
            delay = max(delay, named)
        return delay * random.uniform(1.0, 1.25)  # not all clients at once


def had_no_effect(outcome: httpx.Response | httpx.RequestError) -> bool:
    """Return whether the service has certainly not done what a call asked for.

    A service that is overloaded, has no space or limits the rate refuses before it writes. Behind 502, 504, a deadline
    and a connection that was lost, it may have written, and only its response is missing.
    """
    if isinstance(outcome, httpx.Response):
        late = error_of_response(outcome).code == "deadline_exceeded"
        return outcome.status_code == 429 or (outcome.status_code == 503 and not late)
    return isinstance(outcome, httpx.ConnectError)


def _is_passing(outcome: httpx.Response | httpx.RequestError) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in _STATUSES
    return isinstance(outcome, _FAILURES)
