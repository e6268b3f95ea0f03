"""A rate limit on queries: by API key, or by the client's address where the service has no keys."""

from __future__ import annotations

import math
import time
from ipaddress import IPv4Address, ip_address, ip_network

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.errors import RateLimited, RequestError
from lookalike.errors import ConfigInvalid


class RateLimiter:
    """Counts the queries of each caller in a sliding window."""

    def __init__(self, rate: str) -> None:
        """Parse a rate such as `600/minute`; empty for no limit.

        Raises:
            ConfigInvalid: the rate can't be parsed.
        """
        self._rate = _parse_rate(rate) if rate else None
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())  # its entries expire

    def count(self, caller: str, address: str, queries: int = 1, *, counted: int = 0) -> None:
        """Count queries of a caller: all of them, or none if the rate does not allow all.

        Args:
            caller: name of the caller; empty without keys.
            address: counted where the caller has no name.
            queries: how many.
            counted: how many of the same request have been counted before.

        Raises:
            RateLimited: the caller's rate is used up.
            RequestError: the rate is lower than the number of queries of the request.
        """
        if self._rate is None or not queries:
            return
        if counted + queries > self._rate.amount:
            raise RequestError(
                f"{counted + queries} queries at once are more than the limit of {self._rate}; send fewer at once"
            )
        name = caller or _network(address)
        if not self._limiter.hit(self._rate, name, cost=queries):
            free = self._limiter.get_window_stats(self._rate, name).reset_time - time.time()
            seconds = max(1, math.ceil(free))
            raise RateLimited(f"the limit of {self._rate} is used up; retry in {seconds} s", seconds)


def _network(address: str) -> str:
    """Return an IPv4 address as it is, and of an IPv6 address the /64 that one subscriber has (RFC 6177)."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))


def _parse_rate(text: str) -> RateLimitItem:
    hint = f"LOOKALIKE_RATE_LIMIT is {text!r}; write it like 20/second, 600/minute or 5000 per hour"
    try:
        rate = parse(text)
    except ValueError as error:
        raise ConfigInvalid(hint) from error
    if rate.amount < 1:
        raise ConfigInvalid(hint)
    return rate
