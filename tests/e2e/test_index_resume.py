"""`lookalike index` as a process: killed, interrupted, resumed, and its output."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lookalike.collection import open_collection
from tests.bad_images import bad_images, encoded, make_image
from tests.e2e.commands import invoke, invoke_json, lookalike
from tests.unit.test_sources import write_tar

COUNT = 8_000
SHARD = 2_048


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of thousands of small images, so that a run writes several shards."""
    drawn = [encoded(make_image(16, 16, seed), "JPEG") for seed in range(64)]
    members = {f"{i:05}.jpg": drawn[i % len(drawn)] for i in range(COUNT)}
    return write_tar(tmp_path_factory.mktemp("many") / "many.tar", members)


def _start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli.main", "index", *map(str, arguments), "--encoder", "fake"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for_shards(job: subprocess.Popen[str], out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob(".work/*/encoded-*.arrow"))) < count:
        assert job.poll() is None, "the job ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_job_resumes_without_encoding_twice(many: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "killed", tmp_path / "whole"
    for shards in (1, 2):
        job = _start(many, "--out", out)
        _wait_for_shards(job, out, shards)
        job.kill()
        job.communicate()
    kept = len(list(out.glob(".work/*/encoded-*.arrow")))
    summary = invoke_json("index", many, "--out", out, "--encoder", "fake")
    assert summary["reused"] >= 2 * SHARD
    assert kept >= 2
    assert summary["reused"] + summary["encoded"] == summary["indexed"] == COUNT

    invoke_json("index", many, "--out", whole, "--encoder", "fake")
    first, second = open_collection(out), open_collection(whole)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    some = range(0, COUNT, 97)
    assert [record["id"] for record in first.metadata.records(some)] == [f"many/{i:05}" for i in some]
    assert not (out / ".work").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_job_keeps_encoded_images(many: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    job = _start(many, "--out", out)
    _wait_for_shards(job, out, 1)
    job.send_signal(number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "interrupted; run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert not (out / "CURRENT").exists()
    summary = invoke_json("index", many, "--out", out, "--encoder", "fake")
    assert summary["reused"] >= SHARD
    assert summary["reused"] + summary["encoded"] == COUNT


def test_second_run_is_unchanged(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(encoded(make_image(seed=i), "JPEG"))
    for bad in bad_images():
        (folder / bad.name).write_bytes(bad.data)
    first = lookalike("index", folder, "--out", out, "--encoder", "fake")
    assert first.returncode == 0, first.stderr
    assert f"{3 + len(bad_images())} seen = 3 indexed + {len(bad_images())} rejected" in first.stdout
    assert "image_too_large" in first.stdout
    assert f"lookalike serve {out}" in first.stdout
    again = invoke("index", folder, "--out", out, "--encoder", "fake")
    assert again.stdout.startswith("unchanged: 3 images")
    summary = json.loads(invoke("index", folder, "--out", out, "--encoder", "fake", "--json").stdout)
    assert (summary["unchanged"], summary["encoded"], summary["seen"]) == (True, 0, 3 + len(bad_images()))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere"], 1, "'nowhere' does not exist"),
        ([".", "--encoder", "no-such"], 1, "no-such"),
        ([".", "--store", "no-such"], 1, "unknown store 'no-such'"),
        ([".", "--batch-size", "0"], 2, "--batch-size"),
        ([], 2, "SOURCE"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(make_image(), "JPEG"))
    run = lookalike if arguments == ["nowhere"] else invoke
    done = run("index", *arguments, "--out", tmp_path / "out")
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
