"""The command as a user runs it, for the end-to-end tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx


def lookalike(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `lookalike ARGUMENTS` and return its status and output."""
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=600)


def lookalike_json(*arguments: str | Path) -> dict[str, Any]:
    """Run `lookalike ARGUMENTS --json`, which must succeed, and return its last line of output."""
    done = lookalike(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(collection: Path, port: int | None = None, **settings: str) -> Iterator[str]:
    """Start `lookalike serve COLLECTION`, yield its address once it is ready, and stop it at the end."""
    port = port or free_port()
    command = [sys.executable, "-m", "cli.main", "serve", str(collection), "--port", str(port)]
    service = subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1", **settings})
    try:
        wait_until_ready(service, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        service.terminate()
        service.wait(timeout=30)


def wait_until_ready(service: subprocess.Popen[Any], address: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert service.poll() is None, f"the service ended with status {service.returncode}"
        try:
            if httpx.get(f"{address}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the service was not ready in time")
