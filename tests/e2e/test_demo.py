"""`lookalike demo`, which `make demo` runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.e2e.commands import free_port, lookalike, wait_until_ready


def test_demo_once_prints_results_and_exits(tmp_path: Path) -> None:
    process = lookalike("demo", "--once", "--port", str(free_port()), cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "chelsea.png" in process.stdout
    german = process.stdout.split("'eine Tasse Kaffee'\n")[1]
    assert german.split()[1] == "coffee.png"
    assert "motorcycle_right.png" in process.stdout
    assert "similar: True" in process.stdout


def test_demo_indexes_own_folder_and_stops_on_ctrl_c(gallery: Path, tmp_path: Path) -> None:
    folder = tmp_path / "My Images"
    folder.mkdir()
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        (folder / name).write_bytes((gallery / name).read_bytes())
    (folder / "aaa broken.jpg").write_bytes(b"\xff\xd8\xff truncated")
    port = free_port()
    command = [sys.executable, "-m", "cli.main", "demo", "--images", str(folder), "--port", str(port)]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert demo.stdout is not None
    try:
        wait_until_ready(demo, f"http://127.0.0.1:{port}")
        for line in demo.stdout:
            if line.startswith("Open "):
                break
        body = httpx.post(f"http://127.0.0.1:{port}/v1/search/text", json={"text": "coffee"}, timeout=30).json()
        assert len(body["results"]) == 3
        os.killpg(demo.pid, signal.SIGINT)  # like Ctrl-C in a terminal: to the foreground process group
        demo.communicate(timeout=60)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.wait()
    assert demo.returncode == 0
