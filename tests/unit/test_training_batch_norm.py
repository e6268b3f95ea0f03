"""Reparametrized batch normalization keeps the outputs of a network."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lookalike.types import UInt8
from training.network.batch_norm import reparametrize_batch_norm, trains_batch_norm
from training.settings import Base, ObjectiveSettings, Optimizer, Settings


class Network(nn.Module):
    """Images (n, 3, S, S) uint8 -> (n, 4), with statistics that differ from its inputs'."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4, eps=1e-3)
        )
        self.last = nn.BatchNorm1d(4)
        for layer in self.norms():
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 40)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)

    def norms(self) -> list[nn.Module]:
        return [layer for layer in self.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.last(self.layers(pixels.float() / 255).mean((2, 3)))
        return out


@pytest.fixture
def pixels() -> UInt8:
    random = np.random.default_rng(0)
    return random.integers(60, 120, (64, 3, 12, 12), np.uint8)


def test_outputs_stay_the_same(pixels: UInt8) -> None:
    network = Network().eval()
    images = torch.from_numpy(pixels)
    before = network(images)
    reparametrize_batch_norm(network, pixels, 12)
    assert torch.allclose(network(images), before, atol=1e-4)


def test_batch_statistics_match_the_running_ones(pixels: UInt8) -> None:
    """In training mode outputs stay close to the base's; without reparametrization they would not."""
    images = torch.from_numpy(pixels)
    plain = Network().eval()
    before = plain(images)
    assert not torch.allclose(copy.deepcopy(plain).train()(images), before, atol=0.3)
    reparametrize_batch_norm(plain, pixels, 12)
    assert torch.allclose(plain.train()(images), before, atol=0.02)


def test_layers_without_statistics_or_scale_are_unchanged(pixels: UInt8) -> None:
    network = Network()
    network.layers[1] = nn.BatchNorm2d(8, affine=False)
    network.layers[4] = nn.BatchNorm2d(4, track_running_stats=False)
    before = copy.deepcopy(network.layers.state_dict())
    reparametrize_batch_norm(network, pixels, 12)
    for name, value in network.layers.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_unused_layers_are_unchanged(pixels: UInt8) -> None:
    network = Network()
    network.spare = nn.BatchNorm2d(5)
    reparametrize_batch_norm(network, pixels, 12)
    assert torch.equal(network.spare.weight, torch.ones(5))


@pytest.mark.parametrize(("freeze_norm", "chunk", "learn"), [(True, 0, False), (False, 0, True), (False, 8, False)])
def test_batch_norm_trains_unless_frozen_or_chunked(freeze_norm: bool, chunk: int, learn: bool) -> None:
    settings = Settings(
        base=Base(encoder="lite", freeze_norm=freeze_norm),
        objective=ObjectiveSettings(name="triplet"),
        optimizer=Optimizer(chunk=chunk),
    )
    assert trains_batch_norm(settings) is learn
