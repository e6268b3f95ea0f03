"""Images by URL, fetched so that nobody can make the service speak to a machine that it should not (SSRF).

A host is resolved once, every address of it must be globally routable or on the allow-list, and the address that was
judged is the one that is dialled: a name that resolves to something else a moment later (DNS rebinding) gains nothing.
All of that happens where the connection is made, so a redirect is judged like any other URL. No proxy is taken from the
environment, no credentials are sent, bytes and time are bounded, and what a server says of its content is not believed:
the decoder looks.
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

from app.errors import Overloaded, UrlDisabled, UrlFailed, UrlRefused
from app.execution.tracebacks import clear_traceback
from app.settings import words
from lookalike.errors import ConfigInvalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> numeric addresses, in the order in which they are tried."""

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_LONGEST_URL = 4096
_AT_ONCE = 16
_HOST = re.compile(rb"[A-Za-z0-9._:-]+")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is globally routable in IPv6 so far; Python's own list grows from release to release."""
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # a cloud's own services, on an address that is public elsewhere
            "192.0.0.0/24",  # protocol assignments (RFC 6890), of which Python 3.11 knows a few
            "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)
"""What `is_global` lets pass, in some release or in all."""
_NAMES = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="names")
"""Asks for names: a slow server's answer keeps nothing else waiting."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """Addresses that need not be globally routable: networks, and names whose every address is taken."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, text: str) -> AllowList:
        """From host names, addresses and networks (CIDR) between blanks or commas.

        Raises:
            ConfigInvalid: an entry is none of them.
        """
        networks, hosts = [], set()
        for entry in words(text):
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]")))
            except ValueError as error:
                host = _host_name(entry)
                if host is None:
                    raise ConfigInvalid(
                        f"LOOKALIKE_URLS_ALLOWED: {entry!r} is no host name, address or network: {error}"
                    ) from error
                hosts.add(host)
        return cls(tuple(networks), frozenset(hosts))

    def takes(self, host: str, address: str) -> bool:
        """Whether a host may be dialled at a numeric address."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return _plain(host) in self.hosts or any(found in network for network in self.networks) or is_public(found)


def is_public(address: Address) -> bool:
    """Whether an address is globally routable, and so is every IPv4 address that it may stand for."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64 or int(address) >> 32 == 0:  # NAT64; IPv4-compatible, long deprecated
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if not all(is_public(each) for each in inner if each is not None):
            return False
        if address.ipv4_mapped is not None or address in _NAT64:
            return True
        if address not in _UNICAST:
            return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


class ImageFetcher:
    """Fetches images. Used on one event loop."""

    def __init__(
        self,
        *,
        enabled: bool,
        allowed: str = "",
        max_bytes: int,
        timeout: float,
        resolve: Resolve | None = None,
        dial: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            enabled: whether URLs are taken at all.
            allowed: the allow-list, as `AllowList.parse` reads it.
            max_bytes: the largest image.
            timeout: seconds for everything from the name to the last byte.
            resolve: asks the system's resolver by default.
            dial: what connects to a numeric address.

        Raises:
            ConfigInvalid: the allow-list can't be understood.
        """
        self._enabled = enabled
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._guard = _Guard(AllowList.parse(allowed), resolve or _resolve, dial or httpcore.AnyIOBackend())
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._headers = [
            ("Accept", "image/*"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", f"Lookalike/{version('lookalike')}"),
        ]

    async def get(self, url: str) -> bytes:
        """What is at `url`: http or https, at most five redirects.

        Raises:
            UrlDisabled: the service takes no URLs.
            UrlRefused: the URL, or one that it redirects to, is none that the service would ask.
            UrlFailed: no answer in time, no 200, or too many bytes.
            Overloaded: half of that time went by before it had its turn among others.
        """
        if not self._enabled:
            raise UrlDisabled("this service fetches no images; send the image itself, or set LOOKALIKE_URLS=true")
        until = asyncio.get_running_loop().time() + self._timeout
        try:
            async with asyncio.timeout_at(until - self._timeout / 2):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Overloaded("too many images are being fetched; come again when there is less to do") from error
        try:
            async with asyncio.timeout_at(until):
                return await self._follow(url)
        except TimeoutError as error:
            raise UrlFailed(f"the image did not arrive within {self._timeout:g} s") from error
        finally:
            self._slots.release()

    async def _follow(self, url: str) -> bytes:
        target = _parse(url)
        async with httpcore.AsyncConnectionPool(
            ssl_context=_tls(), network_backend=self._guard, max_keepalive_connections=0
        ) as pool:
            for _ in range(_MOST_REDIRECTS + 1):
                found = await self._once(pool, target)
                if isinstance(found, bytes):
                    return found
                try:
                    target = _parse(str(target.join(found)))
                except httpx.InvalidURL as error:
                    raise UrlRefused("the URL redirects to what is no URL") from error
        raise UrlFailed(f"the URL redirects more than {_MOST_REDIRECTS} times")

    async def _once(self, pool: httpcore.AsyncConnectionPool, url: httpx.URL) -> bytes | str:
        """The body, or where a redirect leads."""
        try:
            async with pool.stream("GET", _dialled(url), headers=self._headers) as answer:
                if answer.status in _REDIRECTS and (where := _header(answer.headers, b"location")):
                    return where
                if answer.status != 200:
                    raise UrlFailed(f"the image's server answers {answer.status}")
                if _header(answer.headers, b"content-encoding") not in ("", "identity"):
                    raise UrlFailed("the image's server compresses what it sends; asked not to")
                length = _header(answer.headers, b"content-length")
                if length.isdigit() and int(length) > self._max_bytes:
                    raise self._too_large()
                data = bytearray()
                async for chunk in answer.aiter_stream():
                    data += chunk
                    if len(data) > self._max_bytes:
                        raise self._too_large()
                return bytes(data)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError) as error:
            told = "the image's server can't be reached, or does not speak HTTP"
            if _is_untrusted(error):
                told = "the certificate of the image's server is not valid for it, or signed by nobody trusted here"
            clear_traceback(error)  # some of which hold what was read, and the error
            raise UrlFailed(told) from error

    def _too_large(self) -> UrlFailed:
        return UrlFailed(f"the image is over the limit of {self._max_bytes:,} bytes (LOOKALIKE_MAX_BODY_BYTES)")


class _Guard(httpcore.AsyncNetworkBackend):
    """Resolves, judges, and dials what it judged."""

    def __init__(self, allowed: AllowList, resolve: Resolve, dial: httpcore.AsyncNetworkBackend) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._dial = dial

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connects to the first address that answers, where all of the host's addresses may be dialled."""
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise UrlFailed("the URL's host has no address") from error
        if not addresses:
            raise UrlFailed("the URL's host has no address")
        if not all(self._allowed.takes(host, address) for address in addresses):
            raise UrlRefused(
                "the URL's host is not on the public internet; LOOKALIKE_URLS_ALLOWED lists those taken all the same"
            )
        for address in addresses[:-1]:
            try:
                return await self._dial.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._dial.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never: no URL leads to one."""
        raise UrlRefused("no URL leads to a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """As its base has it."""
        await self._dial.sleep(seconds)


def _parse(url: str) -> httpx.URL:
    """A URL that may be asked for, but for its addresses. Raises UrlRefused."""
    if len(url) > _LONGEST_URL:
        raise UrlRefused(f"the URL has {len(url):,} characters; at most {_LONGEST_URL:,} are taken")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise UrlRefused(f"this is no URL: {error}") from error
    if parsed.scheme not in ("http", "https"):
        raise UrlRefused(f"the URL's scheme is {parsed.scheme[:20]!r}; it must be http or https")
    if not _HOST.fullmatch(parsed.raw_host):
        raise UrlRefused("the URL names no host, or one of characters that no host has")
    if parsed.userinfo:
        raise UrlRefused("the URL holds a name or password; they are not sent")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise UrlRefused(f"the URL's port is {parsed.port}; ports are 1 to 65,535")
    return parsed


def _dialled(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _is_untrusted(error: BaseException | None) -> bool:
    return error is not None and (
        isinstance(error, ssl.SSLCertVerificationError) or _is_untrusted(error.__cause__ or error.__context__)
    )


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


def _host_name(text: str) -> str | None:
    """A name as URLs have it, letters beyond ASCII encoded (IDNA); None where it is none."""
    try:
        found = httpx.URL(f"http://{text}/").raw_host
    except (httpx.InvalidURL, ValueError, TypeError):
        return None
    name = _plain(found.decode("ascii", "replace"))
    if set("/:@?#") & set(text) or not _HOST.fullmatch(found) or name.rpartition(".")[2].isdigit():
        return None
    return name


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


@cache
def _tls() -> ssl.SSLContext:
    """Made once: reading all certificate authorities takes longer than many an image."""
    return ssl.create_default_context()


async def _resolve(host: str, port: int) -> list[str]:
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_NAMES, ask)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
