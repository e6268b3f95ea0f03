"""What the project uses of uvicorn: its configuration, and three members of its server, in `app/server` alone.

It also relies on two messages that uvicorn logs, and on its response to a request that is not HTTP.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import Scope

from app.main import create_app
from app.server.config import BACKLOG, MAX_HEAD_BYTES, uvicorn_config
from app.server.server import Server, _DrainingServer
from app.server.sockets import listen
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SERVER = "app/server/server.py"
USED = {"should_exit", "handle_exit", "serve"}


async def nothing(*_: object) -> None:
    """An application without responses."""


@pytest.fixture
def plain() -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(nothing))


def sources_naming_uvicorn() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {name: (ROOT / name).read_text() for name in listed.split() if (ROOT / name).exists()}
    return {name: text for name, text in texts.items() if "uvicorn" in text}


def imports(source: str) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return {module for module in modules if module.partition(".")[0] == "uvicorn"}


def test_used_members_have_their_signatures(plain: uvicorn.Server) -> None:
    assert vars(plain)["should_exit"] is False
    assert list(inspect.signature(uvicorn.Server).parameters) == ["config"]
    assert list(inspect.signature(uvicorn.Server.serve).parameters) == ["self", "sockets"]
    assert inspect.iscoroutinefunction(uvicorn.Server.serve)
    # in a process of its own: the MCP SDK, which other tests import, replaces the method
    code = "import inspect, uvicorn; print(*inspect.signature(uvicorn.Server.handle_exit).parameters)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["self", "sig", "frame"]


def test_uvicorn_is_imported_in_the_server_alone() -> None:
    found = {name: modules for name, source in sources_naming_uvicorn().items() if (modules := imports(source))}
    own = str(Path(__file__).relative_to(ROOT))
    assert {name for name in found if name != own} == {"app/server/config.py", SERVER}
    assert set.union(*found.values()) == {"uvicorn", "uvicorn.middleware.proxy_headers"}


def test_server_uses_three_members_of_uvicorn_server(plain: uvicorn.Server) -> None:
    members = set(dir(plain)) - set(dir(object)) - {"__module__"}
    tree = ast.parse((ROOT / SERVER).read_text())
    of_modules = {"asyncio", "runner", "signal", "threading"}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in of_modules)
    }
    assert used & members == USED
    assert set(vars(_DrainingServer)) & members == {"handle_exit"}  # the only override
    assert not any(isinstance(node, ast.Name) and node.id in {"getattr", "setattr", "vars"} for node in ast.walk(tree))


def test_instance_shadows_no_member_of_uvicorn_server(plain: uvicorn.Server, tmp_path: Path) -> None:
    server = Server(create_app(Settings(collection=tmp_path)))._server
    assert {name for name in vars(server) if name not in vars(plain)} == {"_service"}
    assert {name: value for name, value in vars(server).items() if name == "should_exit"} == {"should_exit": False}


def test_server_exposes_no_member_of_uvicorn_server(plain: uvicorn.Server, tmp_path: Path) -> None:
    server = Server(create_app(Settings(collection=tmp_path)))
    assert not isinstance(server, uvicorn.Server)
    assert {name for name in dir(server) if not name.startswith("_")} == {"stop", "serve_application"}
    listed = subprocess.run(["git", "grep", "-lF", "._server", "--", "*.py"], cwd=ROOT, capture_output=True, text=True)
    assert set(listed.stdout.split()) <= {SERVER, str(Path(__file__).relative_to(ROOT))}


def test_configuration_follows_the_settings(tmp_path: Path) -> None:
    settings = Settings(collection=tmp_path, keep_alive=7, shutdown_seconds=3, proxies="10.0.0.0/8")
    config = uvicorn_config(create_app(settings), settings, "error")
    assert (config.http, config.ws, config.lifespan) == ("h11", "none", "off")
    assert (config.h11_max_incomplete_event_size, config.backlog) == (MAX_HEAD_BYTES, BACKLOG)
    assert (config.timeout_keep_alive, config.timeout_graceful_shutdown) == (7, 3)
    assert (config.proxy_headers, config.server_header) == (False, False)
    assert config.limit_concurrency is None


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3"])
@pytest.mark.parametrize(
    ("proxies", "trusted"), [("10.0.0.9/8", True), ("*", True), ("11.0.0.0/8", False), ("", False)]
)
async def test_headers_of_trusted_proxies_are_read(peer: str, proxies: str, trusted: bool, tmp_path: Path) -> None:
    scopes: list[Scope] = []

    async def application(scope: Scope, *_: object) -> None:
        scopes.append(scope)

    config = uvicorn_config(application, Settings(collection=tmp_path, proxies=proxies))  # type: ignore[arg-type]
    forwarded = {"for": "192.0.2.7, ::ffff:10.5.5.5", "proto": "https", "prefix": "/lookalike"}
    headers = [(f"x-forwarded-{name}".encode(), value.encode()) for name, value in forwarded.items()]
    scope = {"type": "http", "client": (peer, 5000), "scheme": "http", "headers": headers, "root_path": ""}
    await config.app(scope, None, None)  # type: ignore[operator,arg-type]
    seen = (scopes[0]["client"][0], scopes[0]["scheme"], scopes[0]["root_path"])
    assert seen == (("192.0.2.7", "https", "/lookalike") if trusted else (peer, "http", ""))


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
async def test_upgrade_is_ignored_without_a_warning(
    protocol: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = f"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: {protocol}\r\n\r\n"
    requests = [upgrade.encode(), b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]
    served, *invalid = await responses(requests, Settings(collection=tmp_path))
    assert served.startswith(b"HTTP/1.1 404 ")  # by the application
    for response in invalid:  # as docs/guides/secure.md has it
        assert response.startswith(b"HTTP/1.1 400 ")
        assert b"content-type: text/plain" in response
    assert caplog.messages == ["Invalid HTTP request received."] * 2


async def responses(requests: list[bytes], settings: Settings) -> list[bytes]:
    """What uvicorn, configured by the settings, sends on a connection for each of the requests."""
    server, listener, received = uvicorn.Server(uvicorn_config(FastAPI(), settings)), listen("127.0.0.1", 0), []
    port = listener.getsockname()[1]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        for request in requests:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            received.append(await asyncio.wait_for(reader.read(), 30))
            writer.close()
            await writer.wait_closed()
    finally:
        server.should_exit = True
        await serving
    return received
