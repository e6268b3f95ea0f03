"""Under which names a service without keys answers: those that no stranger's page can point at this machine.

A page from the internet can give a name of its own this machine's address once it is loaded, and a browser then lets it
read what the service answers (DNS rebinding). An address is no such name, nor is a name that nobody can register. With
keys none of this is needed: a page has none. It knows nothing of routes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import HostRefused, KeysRequired, RequestError, error_response

_NEVER_PUBLIC = ("localhost", "local", "internal", "test", "home.arpa")
"""Domains that no registry gives away (RFC 2606, 6761, 6762, 8375; ICANN on .internal)."""

_REMEMBERED = 256
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s,/?#@:\[\]\\]+)(:\d*)?")


class TrustedHostMiddleware:
    """Refuses what is asked under another name, or on an address that other machines reach."""

    def __init__(self, app: ASGIApp, names: frozenset[str], *, anonymous: bool) -> None:
        """`names` are let pass, too, all where `*` is one of them; `anonymous` lets other machines ask."""
        self.app = app
        self.names = names
        self.anonymous = anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what may be answered."""
        if scope["type"] != "http" or not (error := self._trouble(scope)):
            return await self.app(scope, receive, send)
        scope["app"].state.service.telemetry.count_error(error.code)
        await error_response(scope["path"], error)(scope, receive, send)

    def _trouble(self, scope: Scope) -> RequestError | None:
        if not self.anonymous and not _only_here(scope):
            return KeysRequired(
                "this address can be reached from other machines, and the service has no keys: make one (`lookalike "
                "key NAME`, then LOOKALIKE_KEYS_FILE=keys.toml), or let anyone in with LOOKALIKE_ANONYMOUS=true"
            )
        host = Headers(scope=scope).get("host", "")
        name = host_name(host)
        if not name or "*" in self.names or name in self.names or _is_private(name):
            return None
        return HostRefused(f"the host is {host!r}; a service without keys answers to it once LOOKALIKE_HOSTS names it")


@lru_cache(_REMEMBERED)
def host_name(host: str) -> str:
    """A Host header without its port and the brackets of an address, in small letters; empty where there is none."""
    if host and not _HOST.fullmatch(host):
        return "."
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:  # no header that a browser would send, and no name that is let pass
        return "."


@lru_cache(_REMEMBERED)
def _is_private(name: str) -> bool:
    if _address(name) is not None:
        return True
    return "." not in name or name.endswith(tuple(f".{domain}" for domain in _NEVER_PUBLIC))


def _only_here(scope: Scope) -> bool:
    """Whether the connection came over loopback, or over no network at all."""
    address = _address((scope.get("server") or ("",))[0] or "")
    return address is None or address.is_loopback


@lru_cache(_REMEMBERED)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None
