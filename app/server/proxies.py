"""Reverse proxies in front of the service: which addresses they have, and the prefix that they report."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from app.settings import parse_root_path, split_list

Network = IPv4Network | IPv6Network

_CACHE_SIZE = 1024
_MAPPED_PREFIX_BITS = 96
"""Bits of an IPv4-mapped IPv6 address in front of the IPv4 address (RFC 4291, 2.5.5.2)."""


class ForwardedPrefixMiddleware:
    """Takes `X-Forwarded-Prefix` of a trusted proxy as the request's root path.

    It must see the address of the connection, and not the one of `X-Forwarded-For`. A malformed prefix is ignored.
    """

    def __init__(self, app: ASGIApp, proxies: list[str]) -> None:
        """`proxies` is what `trusted_networks` returned."""
        self.app = app
        self._trusts_all = "*" in proxies
        self._networks = [ip_network(network) for network in proxies if network != "*"]
        self._is_listed = lru_cache(_CACHE_SIZE)(self._find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with the scope's `root_path`."""
        if scope["type"] == "http" and self._trusts((scope.get("client") or ("",))[0]):
            scope["root_path"] = forwarded_prefix(scope["headers"]) or scope.get("root_path", "")
        await self.app(scope, receive, send)

    def _trusts(self, address: str) -> bool:
        return self._trusts_all or self._is_listed(address)

    def _find(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:  # a socket of another kind
            return False
        return any(parsed in network for network in self._networks)


def forwarded_prefix(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the prefix in a request's headers, empty where there is none or it is malformed.

    Of several, it is the last one: the nearest proxy added it.
    """
    values = [value for name, value in headers if name == b"x-forwarded-prefix"]
    try:
        return parse_root_path(values[-1].decode("ascii").rpartition(",")[2].strip(" \t")) if values else ""
    except ValueError:  # of both calls
        return ""


def trusted_networks(proxies: str) -> list[str]:
    """Return the networks of a list of proxies, or `*` alone where it has it.

    Each is there in both families: a socket for IPv6 and IPv4 reports the peer 10.0.0.1 as ::ffff:10.0.0.1.
    """
    entries = split_list(proxies)
    if "*" in entries:
        return ["*"]
    networks = [ip_network(entry, strict=False) for entry in entries]
    return sorted({str(network) for each in networks for network in _in_both_families(each)})


def _in_both_families(network: Network) -> list[Network]:
    if isinstance(network, IPv4Network):
        mapped = f"::ffff:{network.network_address}/{_MAPPED_PREFIX_BITS + network.prefixlen}"
        return [network, ip_network(mapped)]
    address = network.network_address.ipv4_mapped
    if address is None or network.prefixlen < _MAPPED_PREFIX_BITS:
        return [network]
    return [network, IPv4Network((address, network.prefixlen - _MAPPED_PREFIX_BITS))]
