"""The dependency that authenticates a request, checks the caller's role and counts it against the rate limit.

A key is sent as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.auth.keys import Caller, Role
from app.errors import HostRefused, RoleMissing

_DESCRIPTION = "A key that `lookalike key` made; not needed where the service has none."
_bearer = HTTPBearer(auto_error=False, description=_DESCRIPTION)
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description=_DESCRIPTION)

Guard = Callable[..., Awaitable[Caller]]


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
        if role == "admin" and not service.authenticator.requires_key:
            reject_cross_origin(request)
        if not caller.may(role):
            raise RoleMissing(f"this needs the role {role!r}; the key has {caller.role!r}")
        if rate_limited:
            service.rate_limiter.count(caller, request.client.host if request.client else "")
        return caller

    return guard


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
