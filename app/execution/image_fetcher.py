"""A client that fetches images by URL, protected against server-side request forgery (SSRF).

- A host is resolved once. Every address must be globally routable or on the allow-list.
- The connection goes to an address that was checked, so that DNS rebinding has no effect.
- The check is part of connecting, so it applies to redirects too.
- No proxy is taken from the environment, no credentials are sent, and bytes and time are limited.
- The Content-Type of the response is ignored; the decoder detects the format.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version

import httpcore
import httpx
from typing_extensions import override

from app.errors import Overloaded, UrlDisabled, UrlFailed, UrlRefused
from app.execution.tracebacks import clear_traceback
from app.settings import split_list
from lookalike.errors import ConfigInvalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> numeric addresses, in the order in which to try them."""

_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_MAX_URL_CHARACTERS = 4096
_MAX_CONCURRENT_FETCHES = 16
_HOST_PATTERN = re.compile(rb"[A-Za-z0-9._:-]+")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""Global unicast addresses of IPv6 (RFC 4291); `is_global` differs between Python releases."""
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # the platform services of Azure
            "192.0.0.0/24",  # protocol assignments (RFC 6890), incomplete in Python 3.11
            "192.88.99.0/24",  # 6to4 relays (RFC 7526)
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)
"""Not public, although `is_global` is true in some Python releases or in all."""
_RESOLVER_POOL = ThreadPoolExecutor(_MAX_CONCURRENT_FETCHES, thread_name_prefix="resolver")
"""Threads for name resolution alone: a slow DNS server delays nothing else."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts that may be fetched from although they are not public: networks, and host names with any address."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, text: str) -> AllowList:
        """Parse host names, addresses and networks (CIDR), separated by spaces or commas.

        Raises:
            ConfigInvalid: an entry is none of these.
        """
        networks, hosts = [], set()
        for entry in split_list(text):
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]")))
            except ValueError as error:
                host = _parse_host_name(entry)
                if host is None:
                    raise ConfigInvalid(
                        f"LOOKALIKE_URLS_ALLOWED: {entry!r} is not a host name, address or network: {error}"
                    ) from error
                hosts.add(host)
        return cls(tuple(networks), frozenset(hosts))

    def allows(self, host: str, address: str) -> bool:
        """Return whether to connect to a host at a numeric address."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return _normalized(host) in self.hosts or any(ip in network for network in self.networks) or is_public(ip)


def is_public(address: Address) -> bool:
    """Return whether an address is globally routable, and so is every IPv4 address that is embedded in it."""
    if isinstance(address, ipaddress.IPv6Address):
        embedded = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64 or int(address) >> 32 == 0:  # NAT64; IPv4-compatible, long deprecated
            embedded.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if not all(is_public(each) for each in embedded if each is not None):
            return False
        if address.ipv4_mapped is not None or address in _NAT64:
            return True
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


class ImageFetcher:
    """Fetches images by URL. Use it on one event loop only."""

    def __init__(
        self,
        *,
        enabled: bool,
        allowed: str = "",
        max_bytes: int,
        timeout: float,
        resolve: Resolve | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """Check the allow-list; connections are opened by `get`.

        Args:
            enabled: whether `get` may be used.
            allowed: the allow-list, in the format of `AllowList.parse`.
            max_bytes: maximum size of an image.
            timeout: seconds from name resolution to the last byte.
            resolve: resolves host names; the system's resolver by default.
            backend: connects to numeric addresses.

        Raises:
            ConfigInvalid: the allow-list is invalid.
        """
        self._enabled = enabled
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._backend = _CheckedBackend(
            AllowList.parse(allowed), resolve or _getaddrinfo, backend or httpcore.AnyIOBackend()
        )
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT_FETCHES)
        self._headers = [
            # No format is preferred, so servers that convert send JPEG. Many know no type for HEIC and camera RAW.
            ("Accept", "image/*, application/octet-stream;q=0.5"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", f"Lookalike/{version('lookalike')}"),
        ]

    async def get(self, url: str) -> bytes:
        """Return the body at an http or https URL, following up to five redirects.

        Raises:
            UrlDisabled: fetching is not enabled.
            UrlRefused: the URL, or one that it redirects to, is invalid or not allowed.
            UrlFailed: no response within the timeout, a status other than 200, or too many bytes.
            Overloaded: no fetch could start within half of the timeout, as too many others were in progress.
        """
        if not self._enabled:
            raise UrlDisabled("fetching images by URL is disabled; send the image itself, or set LOOKALIKE_URLS=true")
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            async with asyncio.timeout_at(deadline - self._timeout / 2):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Overloaded("too many images are being fetched; retry later") from error
        try:
            async with asyncio.timeout_at(deadline):
                return await self._follow(url)
        except TimeoutError as error:
            raise UrlFailed(f"the image did not arrive within {self._timeout:g} s") from error
        finally:
            self._slots.release()

    async def _follow(self, url: str) -> bytes:
        target = _parse_url(url)
        async with httpcore.AsyncConnectionPool(
            ssl_context=_tls_context(), network_backend=self._backend, max_keepalive_connections=0
        ) as pool:
            for _ in range(_MAX_REDIRECTS + 1):
                result = await self._request(pool, target)
                if isinstance(result, bytes):
                    return result
                try:
                    target = _parse_url(str(target.join(result)))
                except httpx.InvalidURL as error:
                    raise UrlRefused("the URL redirects to an invalid URL") from error
        raise UrlFailed(f"the URL redirects more than {_MAX_REDIRECTS} times")

    async def _request(self, pool: httpcore.AsyncConnectionPool, url: httpx.URL) -> bytes | str:
        """Return the body, or the target of a redirect."""
        try:
            async with pool.stream("GET", _httpcore_url(url), headers=self._headers) as response:
                if response.status in _REDIRECT_STATUSES and (location := _header(response.headers, b"location")):
                    return location
                if response.status != 200:
                    raise UrlFailed(f"the image server responded with status {response.status}")
                if _header(response.headers, b"content-encoding") not in ("", "identity"):
                    raise UrlFailed("the image server sent a compressed response, which the request did not accept")
                length = _header(response.headers, b"content-length")
                if length.isdigit() and int(length) > self._max_bytes:
                    raise self._too_large()
                data = bytearray()
                async for chunk in response.aiter_stream():
                    data += chunk
                    if len(data) > self._max_bytes:
                        raise self._too_large()
                return bytes(data)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError) as error:
            message = "the image server can't be reached, or does not speak HTTP"
            if _is_certificate_error(error):
                message = "the certificate of the image server is invalid for this host, or its issuer is not trusted"
            clear_traceback(error)  # its frames hold the data that was read, and the error itself
            raise UrlFailed(message) from error

    def _too_large(self) -> UrlFailed:
        return UrlFailed(f"the image is over the limit of {self._max_bytes:,} bytes (LOOKALIKE_MAX_BODY_BYTES)")


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """A network backend that resolves a host, checks its addresses and connects to one of these."""

    def __init__(self, allowed: AllowList, resolve: Resolve, backend: httpcore.AsyncNetworkBackend) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._backend = backend

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise UrlFailed("the URL's host can't be resolved") from error
        if not addresses:
            raise UrlFailed("the URL's host can't be resolved")
        if not all(self._allowed.allows(host, address) for address in addresses):
            raise UrlRefused(
                "the URL's host is not on the public internet; LOOKALIKE_URLS_ALLOWED lists the exceptions"
            )
        for address in addresses[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    @override
    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise UrlRefused("Unix domain sockets are not allowed")

    @override
    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


def _parse_url(url: str) -> httpx.URL:
    """Parse a URL and check everything but its host's addresses. Raises UrlRefused."""
    if len(url) > _MAX_URL_CHARACTERS:
        raise UrlRefused(f"the URL has {len(url):,} characters; at most {_MAX_URL_CHARACTERS:,} are allowed")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise UrlRefused(f"the URL is invalid: {error}") from error
    if parsed.scheme not in ("http", "https"):
        raise UrlRefused(f"the URL's scheme is {parsed.scheme[:20]!r}; it must be http or https")
    if not _HOST_PATTERN.fullmatch(parsed.raw_host):
        raise UrlRefused("the URL has no host, or its host contains invalid characters")
    if parsed.userinfo:
        raise UrlRefused("the URL contains a user name or password; remove it, as credentials are not sent")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise UrlRefused(f"the URL's port is {parsed.port}; it must be between 1 and 65,535")
    return parsed


def _httpcore_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _is_certificate_error(error: BaseException | None) -> bool:
    return error is not None and (
        isinstance(error, ssl.SSLCertVerificationError) or _is_certificate_error(error.__cause__ or error.__context__)
    )


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


def _parse_host_name(text: str) -> str | None:
    """Return a host name as in URLs, encoded to ASCII (IDNA); None if it is invalid."""
    try:
        host = httpx.URL(f"http://{text}/").raw_host
    except (httpx.InvalidURL, ValueError, TypeError):
        return None
    name = _normalized(host.decode("ascii", "replace"))
    if set("/:@?#") & set(text) or not _HOST_PATTERN.fullmatch(host) or name.rpartition(".")[2].isdigit():
        return None
    return name


def _normalized(host: str) -> str:
    return host.lower().rstrip(".")


@cache
def _tls_context() -> ssl.SSLContext:
    """Return a cached context: loading the certificate authorities may take longer than fetching an image."""
    return ssl.create_default_context()


async def _getaddrinfo(host: str, port: int) -> list[str]:
    call = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    entries = await asyncio.get_running_loop().run_in_executor(_RESOLVER_POOL, call)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))
