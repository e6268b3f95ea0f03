"""One life of a service: started, observed, killed."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.failure import Failure

REPOSITORY = Path(__file__).resolve().parents[2]
_READY_SECONDS = 60.0
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Response:
    """A response: status, headers in lower case, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Connection:
    """A connection that one thread uses."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Response:
        """Send a request; a body that is no bytes is sent as JSON. Raises OSError or HTTPException."""
        if body is not None and not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
        self._connection.request(method, path, body, dict(headers or {}))
        response = self._connection.getresponse()
        content = response.read()
        return Response(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def expect(self, method: str, path: str, body: Any = None) -> Response:
        """Send a request that must succeed. Raises Failure."""
        response = self.request(method, path, body)
        if response.status != 200:
            raise Failure(f"{method} {path}: {response.status} {response.body[:500]!r}")
        return response

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Launcher:
    """The process that forks services."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "tests.crash.launcher", *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # no threads before a fork
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, arguments: list[str], environment: dict[str, str], log: Path) -> int:
        """Start `lookalike ARGUMENTS`, and return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"arguments": arguments, "environment": environment, "log": str(log)}) + "\n"
        )
        self._process.stdin.flush()
        line = self._read()
        return int(self._read() if line == "ready" else line)

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the launcher; services are ended before."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Service:
    """A service that runs. Its compactions are its child processes.

    Attributes:
        port: it listens on this one.
    """

    def __init__(
        self, root: Path, environment: dict[str, str], log: Path, launcher: Launcher, *, executes: bool
    ) -> None:
        """Start it; with `executes` as a new process, otherwise as a fork of the launcher."""
        self.port = free_port()
        self._log = log
        self._started = log.stat().st_size if log.exists() else 0
        arguments = ["serve", str(root), "--port", str(self.port), "--writable"]
        self._own: subprocess.Popen[bytes] | None = None
        if executes:
            with log.open("ab") as stream:
                self._own = subprocess.Popen(
                    [sys.executable, "-m", "cli.main", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stream,
                    env={**os.environ, **environment},
                    start_new_session=True,
                )
            self.process = self._own.pid
        else:
            self.process = launcher.start(arguments, environment, log)
        try:
            self._handle: int | None = os.pidfd_open(self.process)
        except ProcessLookupError:
            self._handle = None

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._handle is not None and not select.select([self._handle], [], [], 0)[0]

    def wait_until_ready(self) -> float:
        """Wait until it answers queries, and return the seconds. Raises Failure."""
        started = time.monotonic()
        while time.monotonic() < started + _READY_SECONDS:
            if not self.is_running:
                raise Failure(f"the service ended at its start:\n{self.log()}")
            connection = Connection(self.port)
            try:
                if connection.request("GET", "/readyz").status == 200:
                    return time.monotonic() - started
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.01)
        raise Failure(f"the service was not ready within {_READY_SECONDS:g} s:\n{self.log()}")

    def log(self) -> str:
        """Return what it has logged."""
        with self._log.open("rb") as stream:
            stream.seek(self._started)
            return stream.read()[-8_000:].decode(errors="replace")

    def compactions(self) -> list[Compaction]:
        """Return the compactions that run."""
        children = Path(f"/proc/{self.process}/task/{self.process}/children")
        found: list[Compaction] = []
        with suppress(OSError):
            for child in children.read_text().split():
                command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if b"compact" in command:
                    found.append(Compaction(int(child), os.pidfd_open(int(child))))
        return found

    def kill(self, *, with_compactions: bool) -> list[Compaction]:
        """Kill it, with all its processes or alone; return the compactions that go on without it."""
        compactions = self.compactions()
        if with_compactions:
            with suppress(ProcessLookupError):
                os.killpg(self.process, signal.SIGKILL)
        elif self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        if self._handle is not None:
            select.select([self._handle], [], [])
            os.close(self._handle)
            self._handle = None
        if self._own is not None:
            self._own.wait()
        if with_compactions:
            for compaction in compactions:
                compaction.end()
            return []
        return compactions


@dataclass(frozen=True)
class Compaction:
    """A process that builds a version, and the handle by which it is known."""

    process: int
    handle: int

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return not select.select([self.handle], [], [], 0)[0]

    def kill(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def close(self) -> None:
        """Forget it."""
        os.close(self.handle)

    def end(self) -> None:
        """Kill it, wait until it has ended, and forget it."""
        self.kill()
        select.select([self.handle], [], [])
        os.close(self.handle)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
