"""The command as a user runs it, for the end-to-end tests."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from cli.main import main


def lookalike(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `lookalike ARGUMENTS` as a process and return its status and output."""
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=600)


def invoke(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `lookalike ARGUMENTS` in this process, where libraries are loaded; return its status and output."""
    argv, out, err, status = ["lookalike", *map(str, arguments)], io.StringIO(), io.StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", argv):
            main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(argv, status, out.getvalue(), err.getvalue())


def invoke_json(*arguments: str | Path) -> dict[str, Any]:
    """Run `lookalike ARGUMENTS --json` in this process; it must succeed. Return its last line of output."""
    done = invoke(*arguments, "--json")
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
    service = start_service(collection, port, **settings)
    try:
        wait_until_ready(service, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        service.terminate()
        service.wait(timeout=30)


def start_service(collection: Path, port: int, **settings: str) -> subprocess.Popen[bytes]:
    """Start `lookalike serve COLLECTION`; the caller waits until it is ready, and stops it."""
    command = [sys.executable, "-m", "cli.main", "serve", str(collection), "--port", str(port)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1", **settings})


def wait_until_ready(service: subprocess.Popen[Any], address: str) -> None:
    deadline = time.monotonic() + 180
    with httpx.Client(timeout=5, trust_env=False) as client:  # one, because each loads the certificates
        while time.monotonic() < deadline:
            assert service.poll() is None, f"the service ended with status {service.returncode}"
            try:
                if client.get(f"{address}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise AssertionError("the service was not ready in time")
