"""A `lookalike serve` process, and nginx in front of it, for the benchmarks of the service."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DEPLOY = Path(__file__).resolve().parent.parent / "deploy"


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


@contextmanager
def behind_nginx(port: int) -> Iterator[int]:
    """Put nginx, by `deploy/nginx-compose.conf`, in front of the service at `port`; yield nginx's own port."""
    with tempfile.TemporaryDirectory() as folder:
        own = free_port()
        text = (_DEPLOY / "nginx-compose.conf").read_text()
        for original, replacement in {
            "listen 8000;": f"listen 127.0.0.1:{own};",
            "server lookalike:8000;": f"server 127.0.0.1:{port};",
            "/var/cache/nginx": folder,
            "/tmp/nginx.pid": f"{folder}/pid",
        }.items():
            text = text.replace(original, replacement)
        (Path(folder) / "nginx.conf").write_text(text)
        shutil.copy(_DEPLOY / "nginx-common.conf", folder)
        command = ["nginx", "-e", f"{folder}/log", "-p", folder, "-c", f"{folder}/nginx.conf", "-g", "daemon off;"]
        nginx = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _await_listening(nginx, own)
            yield own
        finally:
            nginx.terminate()
            nginx.wait()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_listening(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit("nginx does not start; on Debian: apt-get install nginx-light")
