"""Who may ask, and how often: what every route under /v1 depends on.

A key comes as `Authorization: Bearer KEY` or as `X-API-Key: KEY`. A service without keys answers anyone; a rate limit
then counts by the client's address. It knows nothing of what is asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app.errors import KeyInvalid, KeyMissing, RateLimited, RoleMissing
from app.keys import Caller, Keyring, Role
from retrieval.errors import ConfigInvalid

_DESCRIPTION = "A key that `lookalike key` made; not needed where the service has none."
_bearer = HTTPBearer(auto_error=False, description=_DESCRIPTION)
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description=_DESCRIPTION)

Guard = Callable[..., Awaitable[Caller]]


class Access:
    """The keys, as they were read at the start, and the rate limit of a service."""

    def __init__(self, keyring: Keyring, anonymous: Role, rate: str) -> None:
        """From the keys, what anyone may where there are none, and a rate such as `20/second`; empty for no limit.

        Raises:
            ConfigInvalid: the rate can't be understood.
        """
        self.keyring = keyring
        self._anyone = Caller("", anonymous)
        self._rate = _parse_rate(rate) if rate else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def identify(self, key: str | None) -> Caller:
        """The caller of a request.

        Raises:
            KeyMissing, KeyInvalid: the service has keys and this is none of them.
        """
        if not len(self.keyring):
            return self._anyone
        if not key:
            raise KeyMissing("this service wants a key: send Authorization: Bearer KEY, or X-API-Key: KEY")
        caller = self.keyring.caller(key)
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
        who = caller.name or address
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
        if not caller.may(role):
            raise RoleMissing(f"this needs the role {role!r}; the key has {caller.role!r}")
        if counted:
            access.spend(caller, request.client.host if request.client else "")
        return caller

    return guard


def _parse_rate(text: str) -> RateLimitItem:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigInvalid(
            f"LOOKALIKE_RATE_LIMIT is {text!r}; write it like 20/second, 600/minute or 5000 per hour"
        ) from error
