"""A real nginx by the configurations in `deploy/`, for the overload benchmark and for tests."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.serving import free_port

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"


@contextmanager
def nginx(configuration: str, folder: Path, changes: Mapping[str, str]) -> Iterator[None]:
    """Run nginx until the end of the block; what it writes stays in the folder.

    Args:
        configuration: a file of `deploy/`.
        folder: an existing folder for its copy and for logs.
        changes: texts of the configuration and what replaces them, such as ports and paths.

    Raises:
        RuntimeError: a text does not occur in the configuration, or nginx does not start (the message has its log).
    """
    text, common = (DEPLOY / configuration).read_text(), (DEPLOY / "nginx-common.conf").read_text()
    for original, replacement in changes.items():
        if original not in text + common:
            raise RuntimeError(f"{original!r} is not in {configuration}")
        text, common = text.replace(original, replacement), common.replace(original, replacement)
    (folder / "nginx.conf").write_text(text)
    (folder / "nginx-common.conf").write_text(common)
    with run_nginx(folder):
        yield


@contextmanager
def run_nginx(folder: Path) -> Iterator[None]:
    """Run nginx by the file `nginx.conf` of a folder until the end of the block. Raises RuntimeError."""
    directives = "daemon off; user root;"  # the folder's owner, who runs the tests
    command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", directives]
    port = int(re.findall(r"listen 127\.0\.0\.1:(\d+)", (folder / "nginx.conf").read_text())[0])
    with run_proxy(command, port, folder / "log"):
        yield


@contextmanager
def run_proxy(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the end of the block, which begins when it listens. What it writes to stderr is in `log`.

    Raises:
        RuntimeError: it does not start; the message has its log.
    """
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
        try:
            deadline = time.monotonic() + 20
            while not listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} does not start: {log.read_text()}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


@contextmanager
def compose_proxy(folder: Path, *replicas: int, more: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run the proxy of docker-compose.yml in front of one or two replicas on these ports; yield its own port."""
    port = free_port()
    changes = {
        "listen 8000": f"listen 127.0.0.1:{port}",
        "lookalike-a:8000": f"127.0.0.1:{replicas[0]}",
        "lookalike-b:8000": f"127.0.0.1:{replicas[-1]}",
        "/tmp/nginx.pid": f"{folder}/nginx.pid",
        "/var/cache/nginx": str(folder),
        **(more or {}),
    }
    with nginx("nginx-compose.conf", folder, changes):
        yield port


def listens(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
