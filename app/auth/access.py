"""Who may ask, and how often: what every route under /v1 depends on.

A key comes as `Authorization: Bearer KEY` or as `X-API-Key: KEY`. A service without keys answers anyone; a rate limit
then counts by the client's address. It knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.auth.keys import Caller, Role, load_keyring
from app.errors import HostRefused, KeyInvalid, KeyMissing, RateLimited, RoleMissing
from app.settings import Settings
from lookalike.errors import ConfigInvalid

logger = logging.getLogger(__name__)

_DESCRIPTION = "A key that `lookalike key` made; not needed where the service has none."
_bearer = HTTPBearer(auto_error=False, description=_DESCRIPTION)
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description=_DESCRIPTION)

Guard = Callable[..., Awaitable[Caller]]


class Access:
    """The keys and the rate limit of a service.

    Attributes:
        guarded: whether a key is wanted. Decided at the start: a key file that loses its keys lets nobody in.
    """

    def __init__(self, settings: Settings) -> None:
        """Reads the keys.

        Raises:
            ConfigInvalid: the keys can't be read, or the rate can't be understood.
        """
        self._listed, self._file = settings.keys.get_secret_value(), settings.keys_file
        self._read = _stamp(self._file)  # before the file is read: what is written in between is read again
        self._keyring = load_keyring(self._listed, self._file)
        self.guarded = len(self._keyring) > 0 or self._file is not None
        self._anyone = Caller("", "read" if settings.anonymous else "admin")
        self._rate = _parse_rate(settings.rate_limit) if settings.rate_limit else None
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())  # forgets who asks no more

    async def watch(self, seconds: float) -> None:
        """Reads the key file again whenever it has changed, so that keys come and go without a restart; never ends.

        A file that can't be read is refused: the keys before it stay valid.
        """
        while self._file is not None:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Reads the key file again where it has changed."""
        stamp = _stamp(self._file)
        if stamp == self._read:
            return
        self._read = stamp
        try:
            self._keyring = load_keyring(self._listed, self._file)
        except ConfigInvalid as error:
            logger.error("keys_refused: %s; the keys before stay valid", error)
        else:
            logger.warning("keys_read count=%d", len(self._keyring))

    def identify(self, key: str | None) -> Caller:
        """The caller of a request.

        Raises:
            KeyMissing, KeyInvalid: the service has keys and this is none of them.
        """
        if not self.guarded:
            return self._anyone
        if not key:
            raise KeyMissing("this service wants a key: send Authorization: Bearer KEY, or X-API-Key: KEY")
        caller = self._keyring.caller(key.strip())  # blanks around a header's value are no part of it (RFC 9110)
        if caller is None:
            raise KeyInvalid("the key is none of this service's")
        return caller

    def spend(self, caller: Caller, address: str) -> None:
        """Counts a query against its caller's rate.

        Raises:
            RateLimited: more than the rate allows; says when there is room again.
        """
        if self._rate is None:
            return
        who = caller.name or _network(address)
        if not self._limiter.hit(self._rate, who):
            free = self._limiter.get_window_stats(self._rate, who).reset_time - time.time()
            raise RateLimited(f"more than {self._rate} queries; wait as Retry-After says", max(1, math.ceil(free)))


def requires(role: Role, *, counted: bool = False) -> Guard:
    """A dependency that lets a request pass whose caller has a role.

    Args:
        role: what the caller must have.
        counted: whether the request counts against the rate limit.

    Returns:
        A dependency that raises KeyMissing, KeyInvalid, RoleMissing or RateLimited.
    """

    async def guard(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
        header: Annotated[str | None, Security(_header)] = None,
    ) -> Caller:
        access: Access = request.app.state.service.access
        caller = access.identify(bearer.credentials if bearer else header)
        request.state.caller = caller.name
        if role == "admin" and not access.guarded:
            refuse_foreign_page(request)
        if not caller.may(role):
            raise RoleMissing(f"this needs the role {role!r}; the key has {caller.role!r}")
        if counted:
            access.spend(caller, request.client.host if request.client else "")
        return caller

    return guard


def refuse_foreign_page(request: Request) -> None:
    """Refuses what a page from elsewhere has a browser do here, where no key tells it from the user.

    A browser says where a page is from (Fetch standard, `Origin`), and lets it POST anywhere.

    Raises:
        HostRefused: the page is not this service's own.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HostRefused(f"a page from {origin!r} may not do this; ask without an Origin, or give the service keys")


def _network(address: str) -> str:
    """What a rate is counted by: an IPv4 address, or the /64 that one subscriber of IPv6 has (RFC 6177)."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return address
    return str(found.ipv4_mapped or ip_network((found, 64), strict=False))


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when a file is written; None where there is none."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found else None


def _parse_rate(text: str) -> RateLimitItem:
    mend = f"LOOKALIKE_RATE_LIMIT is {text!r}; write it like 20/second, 600/minute or 5000 per hour"
    try:
        rate = parse(text)
    except ValueError as error:
        raise ConfigInvalid(mend) from error
    if rate.amount < 1:
        raise ConfigInvalid(mend)
    return rate
