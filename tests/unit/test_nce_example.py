"""The example of noise-contrastive estimation: its loss against a naive loop, and that it learns a density."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import MultivariateNormal

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "nce_mixture.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("nce_mixture", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("noise_per_point", [1, 5])
def test_loss_equals_the_naive_loop(example, noise_per_point):
    torch.manual_seed(0)
    noise = MultivariateNormal(torch.zeros(2), 2 * torch.eye(2))
    points, noise_points = torch.randn(4, 2), torch.randn(4 * noise_per_point, 2)

    def log_density(rows):
        return -rows.abs().sum(1)

    def gap(point):
        log_noise = -math.log(4 * math.pi) - float(point.square().sum()) / 4
        return -float(point.abs().sum()) - log_noise - math.log(noise_per_point)

    expected = -sum(math.log(1 / (1 + math.exp(-gap(point)))) for point in points) / 4
    expected -= sum(math.log(1 / (1 + math.exp(gap(point)))) for point in noise_points) / 4
    assert example.nce_loss(log_density, noise, points, noise_points).item() == pytest.approx(expected, abs=1e-5)


def test_learns_and_draws_the_mixture(example, tmp_path):
    start, learned = example.learn(1, steps=1), example.learn(1, steps=500)
    assert start.distance > 0.3
    assert learned.distance < 0.15
    assert learned.integral == pytest.approx(1, abs=0.1)
    assert sum(learned.losses[-50:]) < sum(learned.losses[:50])
    example.draw({1: learned, 5: start}, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
