"""Authentication: the caller of a request, from its API key, and what the caller may do.

A key is sent as `Authorization: Bearer KEY` or as `X-API-Key: KEY`. The key file is read again when it changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.auth.keys import Caller, Role, load_keyring
from app.auth.rate_limit import RateLimiter
from app.errors import HostRefused, KeyInvalid, KeyMissing, RoleMissing
from app.settings import Settings
from lookalike.errors import ConfigInvalid

logger = logging.getLogger(__name__)

_DESCRIPTION = "A key that `lookalike key` made; not needed where the service has none."
_bearer = HTTPBearer(auto_error=False, description=_DESCRIPTION)
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description=_DESCRIPTION)

Guard = Callable[..., Awaitable[Caller]]


class Authenticator:
    """The API keys of a service.

    Attributes:
        requires_key: whether a request must carry a key. It is decided at the start: a key file that loses all its
            keys rejects every request.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the keys.

        Raises:
            ConfigInvalid: the keys can't be read.
        """
        self._listed, self._file = settings.keys.get_secret_value(), settings.keys_file
        self._read = self._seen = _stamp(self._file)  # before the file is read: a write in between is a change
        self._keyring = load_keyring(self._listed, self._file)
        self.requires_key = len(self._keyring) > 0 or self._file is not None
        self._anonymous = Caller("", "read" if settings.anonymous else "admin")

    def authenticate(self, key: str | None) -> Caller:
        """Return the caller to whom a key belongs.

        Raises:
            KeyMissing: the service requires a key.
            KeyInvalid: the service does not have this key.
        """
        if not self.requires_key:
            return self._anonymous
        if not key:
            raise KeyMissing("an API key is required: send Authorization: Bearer KEY, or X-API-Key: KEY")
        caller = self._keyring.caller(key.strip())  # blanks around a header's value are no part of it (RFC 9110)
        if caller is None:
            raise KeyInvalid("unknown API key")
        return caller

    async def watch(self, seconds: float) -> None:
        """Reload the key file whenever it has changed; never return.

        A file that can't be read is refused: the previous keys stay valid.
        """
        while self._file is not None:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Read the key file again if it has changed, and not since the previous call.

        A file that is being written is not read: truncated, it would be valid and hold no key.
        """
        stamp, previous = _stamp(self._file), self._seen
        self._seen = stamp
        if stamp == self._read or stamp != previous:
            return
        self._read = stamp
        try:
            self._keyring = load_keyring(self._listed, self._file)
        except ConfigInvalid as error:
            logger.error("keys_refused: %s; the previous keys stay valid", error)
        else:
            logger.warning("keys_read count=%d", len(self._keyring))


def require_role(role: Role, *, rate_limited: bool = False) -> Guard:
    """Return a dependency that admits callers with a role.

    Args:
        role: the role that the caller must have.
        rate_limited: whether the request counts against the rate limit.

    Returns:
        A dependency that raises KeyMissing, KeyInvalid, RoleMissing or RateLimited.
    """

    async def guard(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
        header: Annotated[str | None, Security(_header)] = None,
    ) -> Caller:
        service = request.app.state.service
        caller: Caller = service.authenticator.authenticate(bearer.credentials if bearer else header)
        request.state.caller = caller.name
        if role != "read" and not service.authenticator.requires_key:
            reject_cross_origin(request)
        if not caller.may(role):
            raise RoleMissing(f"this needs the role {role!r}; the key has {caller.role!r}")
        if rate_limited:
            _count(request, 1)
        return caller

    return guard


def count_queries(request: Request, queries: int) -> None:
    """Count the queries of a request, which has been counted as one of them. Raises RateLimited, RequestError."""
    _count(request, queries - 1, counted=1)


def _count(request: Request, queries: int, *, counted: int = 0) -> None:
    limiter: RateLimiter = request.app.state.service.rate_limiter
    address = request.client.host if request.client else ""
    limiter.count(request.state.caller, address, queries, counted=counted)


def reject_cross_origin(request: Request) -> None:
    """Reject a request that a page of another origin makes a browser send.

    A service without keys can't tell such a page from the user otherwise. Browsers name the page's origin (Fetch
    standard, `Origin`), and let it POST anywhere.

    Raises:
        HostRefused: the page is not this service's own.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HostRefused(f"the origin {origin!r} may not do this; send no Origin, or give the service keys")


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """Return values that change when a file is written; None where there is no file."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status else None
