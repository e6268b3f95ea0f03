"""The order of writes, syncs and responses, as the system sees it: what a power cut may lose was not acknowledged."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import pytest

from lookalike.collection import CURRENT, VERSIONS, current_version, open_collection
from lookalike.writes.log import HEAD_FILE, LOG_FILE
from lookalike.writes.operations import Delete, Put
from lookalike.writes.writer import Writer
from tests.crash.collection import build_collection, random_embedding
from tests.crash.service import Connection, free_port
from tests.crash.trace import Call, calls, strace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="strace traces Linux")

_CLIENTS, _WRITES = 8, 12
_WAL = f"/{LOG_FILE}-wal"
_READY_SECONDS = 120.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "collection"
    build_collection(root, 20)
    return root


def test_response_follows_sync_and_clients_share_it(root: Path, tmp_path: Path) -> None:
    process, traced = _write_over_http(root, tmp_path / "trace")
    written = acknowledged = head = syncs = 0
    is_dirty = is_folder_synced = False
    for call in calls(traced, process):
        if call.path.endswith(_WAL):
            if call.name == "pwrite64" and call.has_begun:
                is_dirty = True
                written += 1
            elif call.name in ("fsync", "fdatasync") and call.has_ended:
                is_dirty = False
                syncs += 1
        elif call.path == str(root) and call.name in ("fsync", "fdatasync"):
            is_folder_synced = True
        elif call.path.endswith(HEAD_FILE) and call.name == "pwrite64" and call.has_begun:
            number = _number(call)
            assert number == head == 0 or (number > head and not is_dirty), f"write {number} is not synced"
            head = number
        elif _is_acknowledgement(call):
            acknowledged += 1
            assert acknowledged <= head, f"write {acknowledged} was acknowledged, and the log was synced up to {head}"
            assert is_folder_synced
    assert acknowledged == head == _CLIENTS * _WRITES
    assert written
    assert syncs < acknowledged, f"{syncs} syncs for {acknowledged} writes of {_CLIENTS} clients at once"


def test_version_is_synced_before_it_becomes_current(root: Path, tmp_path: Path) -> None:
    with Writer(open_collection(root)) as writer:
        writer.apply([Put("new", open_collection(root).vectors[0].astype("float32")), Delete("source/3.png")])
    before, trace = current_version(root), tmp_path / "trace"
    command = strace([sys.executable, "-m", "cli.main", "compact", str(root)], trace)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        assert process.wait(timeout=120) == 0
    version = current_version(root)
    assert version != before
    building = f"{root / VERSIONS}/.building-{version}"
    synced: set[str] = set()
    steps: list[str] = []
    for call in calls(trace, process.pid):
        name = call.path.removeprefix(f"{building}/")
        if call.path.startswith(building):
            if call.name in ("write", "pwrite64", "writev"):
                assert not steps, f"{name} is written after the version was published"
                synced -= {name, building}
            elif call.name in ("fsync", "fdatasync") and call.has_ended:
                synced.add(name)
        if (
            call.name.startswith("rename")
            and call.has_begun
            and call.path.split()[-1] == str(root / VERSIONS / version)
        ):
            assert synced >= {building, *os.listdir(root / VERSIONS / version)}
            steps.append("renamed")
        elif steps and call.name == "fsync" and call.has_ended and call.path == str(root / VERSIONS):
            steps.append("folder synced")
        elif steps and call.name == "fsync" and call.has_ended and f"/.{CURRENT}." in call.path:
            steps.append("CURRENT synced")
        elif call.name.startswith("rename") and call.has_begun and call.path.endswith(f"/{CURRENT}"):
            steps.append("CURRENT replaced")
        elif steps and call.name == "fsync" and call.has_ended and call.path == str(root):
            steps.append("collection synced")
    expected = ["renamed", "folder synced", "CURRENT synced", "CURRENT replaced", "collection synced"]
    assert steps[: len(expected)] == expected


def _write_over_http(root: Path, trace: Path) -> tuple[int, Path]:
    """Serve a collection, put items from several clients at once, and return the process id and its trace."""
    port = free_port()
    serve = [sys.executable, "-m", "cli.main", "serve", str(root), "--port", str(port), "--writable"]
    with subprocess.Popen(strace(serve, trace), stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_ready(process, port)
            failures: list[Exception] = []
            barrier = threading.Barrier(_CLIENTS)
            clients = [
                threading.Thread(target=_put_items, args=(port, number, barrier, failures))
                for number in range(_CLIENTS)
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        finally:
            process.send_signal(signal.SIGKILL)
    assert not failures, failures
    return process.pid, trace


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None
        connection = Connection(port)
        try:
            if connection.request("GET", "/readyz").status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise AssertionError("the service was not ready in time")


def _put_items(port: int, client: int, barrier: threading.Barrier, failures: list[Exception]) -> None:
    random, connection = Random(client), Connection(port)
    try:
        barrier.wait()
        for number in range(_WRITES):
            body = {"embedding": random_embedding(random)}
            response = connection.request("PUT", f"/v1/items/{client}/{number}", body)
            assert response.status == 201, response.body
    except Exception as error:
        failures.append(error)
    finally:
        connection.close()


def _is_acknowledgement(call: Call) -> bool:
    return call.has_begun and call.name in ("sendto", "sendmsg", "write", "writev") and "HTTP/1.1 201" in call.text


def _number(call: Call) -> int:
    match = re.search(r'"(\d{20})\\n"', call.text)
    assert match is not None, call.text
    return int(match[1])
