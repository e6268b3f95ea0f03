"""The host names that a service without keys answers to, against DNS rebinding.

A page on the internet can point its own host name at this machine's address after it was loaded; a browser then lets
it read the service's responses. That works with no IP address, and with no name that nobody can register. A service
with keys needs no such check: a page has no key.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import HostRefused, KeysRequired

_PRIVATE_DOMAINS = ("localhost", "local", "internal", "lan", "svc", "test", "home.arpa")
"""Domains that no registry sells (RFC 2606, 6761, 6762, 8375; ICANN on .internal; routers' .lan, Kubernetes' .svc)."""

_CACHE_SIZE = 256
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s,/?#@:\[\]\\]+)(:\d*)?")
_INVALID = "."


class TrustedHostMiddleware:
    """Rejects requests for other host names, and on addresses that other machines can reach."""

    def __init__(self, app: ASGIApp, names: frozenset[str], *, anonymous: bool) -> None:
        """Trust `names` besides private ones, and every name if `*` is among them.

        Args:
            app: the application.
            names: host names in lower case.
            anonymous: whether other machines may send requests.
        """
        self.app = app
        self.names = names
        self.anonymous = anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application. Raises KeysRequired or HostRefused."""
        if scope["type"] == "http":
            self._check(scope)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if not self.anonymous and not _is_local(scope):
            raise KeysRequired(
                "this address can be reached from other machines, and the service has no keys: make one (`lookalike "
                "key NAME`, then LOOKALIKE_KEYS_FILE=keys.toml), or allow anyone with LOOKALIKE_ANONYMOUS=true"
            )
        host = Headers(scope=scope).get("host", "")
        name = host_name(host)
        if name and "*" not in self.names and name not in self.names and not _is_private(name):
            raise HostRefused(
                f"the host is {host!r}; without keys, the service accepts private names, and those "
                "in LOOKALIKE_HOSTS: add the name there"
            )


@lru_cache(_CACHE_SIZE)
def host_name(host: str) -> str:
    """Return the name in a Host header: lower case, without port and brackets, empty where there is none."""
    if host and not _HOST.fullmatch(host):
        return _INVALID
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:  # a header that no browser sends
        return _INVALID


@lru_cache(_CACHE_SIZE)
def _is_private(name: str) -> bool:
    if _address(name) is not None:
        return True
    return "." not in name or name.endswith(tuple(f".{domain}" for domain in _PRIVATE_DOMAINS))


def _is_local(scope: Scope) -> bool:
    """Return whether the connection came over loopback, or over no network at all."""
    address = _address((scope.get("server") or ("",))[0] or "")
    return address is None or address.is_loopback


@lru_cache(_CACHE_SIZE)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
