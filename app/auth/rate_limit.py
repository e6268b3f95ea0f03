"""A rate limit on queries: by API key, or by the client's address where the service has no keys."""

from __future__ import annotations

import math
import time
from ipaddress import IPv4Address, ip_address, ip_network

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.auth.keys import Caller
from app.errors import RateLimited
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

    def count(self, caller: Caller, address: str) -> None:
        """Count a query.

        Args:
            caller: counted by its name.
            address: counted where the caller has no name.

        Raises:
            RateLimited: the caller's rate is used up.
        """
        if self._rate is None:
            return
        name = caller.name or _network(address)
        if not self._limiter.hit(self._rate, name):
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
