"""The path under which a proxy publishes the service: the setting, the header, and which proxies are trusted."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from app.main import create_app
from app.middleware.root_path import RootPathMiddleware, route_path
from app.server.proxies import ForwardedPrefixMiddleware, forwarded_prefix, trusted_networks
from app.settings import OWN_PATHS, Settings, parse_root_path

HOSTILE = [
    b"//evil.example", b"/a//b", b"/a/../b", b"/..", b"/./a", b"javascript:alert(1)", b"http://evil.example/", b"a",
    b"/a\r\nX-Injected: 1", b"/a\n", b"/a b", b'/a"><script>', b"/\xc3\xa9", b"/\xff", b"/a?b", b"/a#b", b"/%2e%2e",
    b"/a\\b", b"/" + b"a" * 1000, b"/v1", b"",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "path"), [("", ""), ("/", ""), ("/lookalike", "/lookalike"), ("/a/b-c.d_e~f@g/", "/a/b-c.d_e~f@g")]
)
def test_root_path_has_no_slash_at_its_end(text: str, path: str) -> None:
    assert parse_root_path(text) == Settings(root_path=text).root_path == path


@pytest.mark.parametrize("text", ["lookalike", "//evil", "/a/../b", "/a?b", "/ü", "/" + "a" * 201, "/v1", "/static/x"])
def test_invalid_root_path_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="like /lookalike"):
        Settings(root_path=text)


def test_own_paths_are_those_of_the_routes() -> None:
    document = create_app(Settings()).openapi()["paths"]
    assert {path.split("/")[1] for path in document} | {"docs", "static", "openapi.json"} == OWN_PATHS


async def scope_behind(middleware: Any, **scope: Any) -> Scope:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await middleware(app)({"type": "http", **scope}, None, None)
    return seen[0]


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/v1/items", "/x/v1/items"),
        ("/x/v1/items", "/x/v1/items"),
        ("/", "/x/"),
        ("/x/", "/x/"),
        ("/x", "/x/"),
        ("/xy", "/x/xy"),
    ],
)
async def test_path_begins_with_the_root_path(sent: str, path: str) -> None:
    raw = sent.encode()
    scope = await scope_behind(lambda app: RootPathMiddleware(app, "/x"), path=sent, raw_path=raw)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/x", path, path.encode())
    assert route_path(scope) == path.removeprefix("/x")


async def test_root_path_of_the_scope_comes_first() -> None:
    scope = await scope_behind(lambda app: RootPathMiddleware(app, "/x"), path="/a", root_path="/y")
    assert (scope["root_path"], scope["path"]) == ("/y", "/y/a")


@pytest.mark.parametrize("value", HOSTILE)
def test_malformed_forwarded_prefix_is_ignored(value: bytes) -> None:
    assert forwarded_prefix([(b"x-forwarded-prefix", value)]) == ""


def test_nearest_proxy_gives_the_prefix() -> None:
    assert forwarded_prefix([]) == ""
    assert forwarded_prefix([(b"x-forwarded-prefix", b"/a/")]) == "/a"
    assert forwarded_prefix([(b"x-forwarded-prefix", b"/client, /proxy")]) == "/proxy"
    assert forwarded_prefix([(b"x-forwarded-prefix", b"/client"), (b"x-forwarded-prefix", b"/proxy")]) == "/proxy"


@pytest.mark.parametrize(
    ("proxies", "peer", "trusted"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.9.9.9/8", "10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("127.0.0.1, 2001:db8::/32", "2001:db8::5", True),
        ("127.0.0.1 *", "192.0.2.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "::ffff:11.0.0.1", False),
        ("10.0.0.0/8", "", False),
        ("2001:db8::/32", "10.0.0.1", False),
    ],
)
async def test_prefix_is_taken_from_trusted_proxies_only(proxies: str, peer: str, trusted: bool) -> None:
    networks = trusted_networks(Settings(proxies=proxies).proxies)
    scope = await scope_behind(
        lambda app: ForwardedPrefixMiddleware(app, networks),
        client=(peer, 5000) if peer else None,
        headers=[(b"x-forwarded-prefix", b"/lookalike")],
    )
    assert scope.get("root_path", "") == ("/lookalike" if trusted else "")
