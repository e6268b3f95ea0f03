"""A `lookalike serve` process for the benchmarks of the service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(collection: Path, **environment: str) -> Iterator[tuple[int, int]]:
    """Start `lookalike serve`, yield its port and process id once it is ready, and stop it at the end."""
    port = free_port()
    command = [sys.executable, "-m", "cli.main", "serve", str(collection), "--port", str(port)]
    service = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        service.stdout.readline()  # printed when it is ready
        yield port, service.pid
    finally:
        service.send_signal(signal.SIGINT)
        service.wait()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
