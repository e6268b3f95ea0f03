"""`lookalike demo`, the command behind `make demo`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.e2e.commands import free_port, lookalike, wait_until_ready


def test_once_prints_three_answers_and_ends_with_status_0(tmp_path: Path) -> None:
    done = lookalike("demo", "--once", "--port", str(free_port()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "chelsea.png" in done.stdout
    assert "motorcycle_right.png" in done.stdout
    assert "similar: True" in done.stdout


def test_a_folder_of_ones_own_and_ctrl_c(gallery: Path, tmp_path: Path) -> None:
    mine = tmp_path / "My Images"
    mine.mkdir()
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        (mine / name).write_bytes((gallery / name).read_bytes())
    (mine / "aaa broken.jpg").write_bytes(b"\xff\xd8\xff truncated")
    port = free_port()
    command = [sys.executable, "-m", "cli.main", "demo", "--images", str(mine), "--port", str(port)]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert demo.stdout is not None
    try:
        wait_until_ready(demo, f"http://127.0.0.1:{port}")
        for line in demo.stdout:
            if line.startswith("Open "):
                break
        found = httpx.post(f"http://127.0.0.1:{port}/v1/search/text", json={"text": "coffee"}, timeout=30).json()
        assert len(found["results"]) == 3
        os.killpg(demo.pid, signal.SIGINT)  # as the terminal does on Ctrl-C: to the whole foreground group
        demo.communicate(timeout=60)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.wait()
    assert demo.returncode == 0
