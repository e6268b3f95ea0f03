"""`lookalike train` on the command line: resumption, two processes, and no promotion where the base is better."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cli.gallery import write_gallery
from tests.e2e.commands import invoke

CONFIG = """
[base]
head = 16
size = 32
freeze = 0.9

[objective]
name = "simclr"

[optimizer]
epochs = {epochs}
batch_size = 8
chunk = 8
learning_rate = {rate}
precision = "fp32"

[data]
holdout = 0.3
"""


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    write_gallery(tmp_path / "gallery")
    return tmp_path / "gallery"


def command(
    folder: Path, out: str, *, epochs: int = 2, rate: float = 1e-4, launcher: tuple[str, ...] = ()
) -> list[str]:
    config = folder / f"{out}.toml"
    config.write_text(CONFIG.format(epochs=epochs, rate=rate))
    start = launcher or (sys.executable, "-m")
    arguments = ["train", str(config), "--data", str(folder / "gallery"), "--out", str(folder / out), "--workers", "0"]
    return [*start, "cli.main", *arguments, "--force"]


def losses(folder: Path, out: str) -> dict[int, float]:
    lines = map(json.loads, (folder / f"{out}.work/metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def here(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, with one thread as in the others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return invoke(*arguments[3:])
    finally:
        torch.set_num_threads(threads)


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, timeout=300)


def test_two_processes_have_the_losses_of_one(tmp_path: Path, gallery: Path) -> None:
    alone = here(command(tmp_path, "alone"))
    assert alone.returncode == 0, alone.stderr
    launcher = (str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2", "-m")
    both = run(command(tmp_path, "both", launcher=launcher))
    assert both.returncode == 0, both.stderr
    one, two = losses(tmp_path, "alone"), losses(tmp_path, "both")
    assert len(one) == 4
    assert two == pytest.approx(one, abs=1e-4)
    assert (tmp_path / "both/encoder.json").is_file()


def test_stopped_run_resumes_to_the_same_losses(tmp_path: Path, gallery: Path) -> None:
    whole = here(command(tmp_path, "whole", epochs=30))
    assert whole.returncode == 0, whole.stderr
    metrics = tmp_path / "stopped.work/metrics.jsonl"
    process = subprocess.Popen(
        command(tmp_path, "stopped", epochs=30),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not metrics.is_file() or metrics.read_text().count("loss") < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "run the same command again to resume" in stderr
    done = len(losses(tmp_path, "stopped"))
    assert done < len(losses(tmp_path, "whole"))
    again = here(command(tmp_path, "stopped", epochs=30))
    assert again.returncode == 0, again.stderr
    assert losses(tmp_path, "stopped") == losses(tmp_path, "whole")


def test_worse_encoder_is_not_promoted(tmp_path: Path, gallery: Path) -> None:
    arguments = command(tmp_path, "worse", rate=30.0)[:-1]  # without --force
    config = Path(arguments[4])
    config.write_text(config.read_text().replace("freeze = 0.9", "freeze = 0.0"))
    done = run(arguments)
    assert done.returncode == 3, done.stderr
    assert "not promoted" in done.stdout
    assert "--force" in done.stdout
    assert "optimizer.learning_rate = 30" in done.stderr
    assert not (tmp_path / "worse").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizr]\n", "unknown key 'optimizr'"),
        ("[objective]\nname = 'tripplet'\n", "objective.name = 'tripplet' is unknown"),
        ("[objective]\nname = 'info_nce'\ntemperature = inf\n", "objective.temperature = inf must be in"),
        ("optimizer = 3\n", "optimizer = 3 must be a table, [optimizer]"),
        ("[objective]\nmargn = 3\n", "unknown option 'margn'"),
        ("[objective\n", "is not TOML"),
        ("[base]\nencoder = 'resnet'\n", "can't be trained"),
        ("data = 3\n", "data = 3"),
        ("[optimizer]\nepochs = inf\n", "optimizer.epochs = inf"),
        ("[optimizer]\nlearning_rate = nan\n", "optimizer.learning_rate = nan"),
        ("seed = 4294967296\n", "seed = 4294967296"),
        ("[base]\nsize = 32\n[augment]\npad = 32\n", "augment.pad = 32"),
    ],
)
def test_invalid_configuration_is_one_line_of_error(tmp_path: Path, gallery: Path, text: str, message: str) -> None:
    arguments = command(tmp_path, "x")
    Path(arguments[4]).write_text(text)
    done = run(arguments) if text.startswith("[optimizr]") else here(arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()
