"""Two gloo processes on loopback, started by torchrun, give the gradients of one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import training_process
from training.distributed import average_gradients, broadcast, gather, process_group
from training.objectives import Embedded, make_objective, objective_names

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", str(REPOSITORY / "tests" / "training_process.py"),
        str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", objective_names())
@pytest.mark.parametrize("cached", [0, 1], ids=["whole", "cached"])
def test_gradients_equal_those_of_one_process(two_processes, name, cached):
    model, objective = training_process.towers(), make_objective(name)
    loss = objective(training_process.embed(model, training_process.inputs(name))).loss
    loss.backward()
    expected = training_process.gradients(model, objective)
    assert max(gradient.abs().max() for gradient in expected) > 1e-3
    for result in two_processes:
        their_loss, theirs = result[f"{name} {cached}"]
        assert their_loss == pytest.approx(loss.item(), abs=1e-6)
        for gradient, own in zip(theirs, expected, strict=True):
            torch.testing.assert_close(gradient, own, atol=1e-6, rtol=1e-5)


def test_different_numbers_of_rows_are_rejected(two_processes):
    for result in two_processes:
        assert result["row count error"] == "every process must embed the same number of rows; got [2, 3]"


def test_gradient_is_averaged_unless_missing_everywhere(two_processes):
    for result in two_processes:
        first, second = result["one-sided"]
        assert first.tolist() == [0.5, 1.5]
        assert second is None


def test_single_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    batch, layer = Embedded(torch.eye(2)), torch.nn.Linear(2, 2)
    with process_group() as process:
        assert (process.rank, process.count, process.first) == (0, 1, True)
        assert gather(batch) is batch
        average_gradients(layer.parameters())
        broadcast(layer)
    assert layer.weight.grad is None
