"""Frozen stages run by OpenVINO: rows, gradients and weights are the same as with torch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from lookalike.encoders.architecture import Architecture, Towers
from lookalike.encoders.lite.towers import LiteBackbone
from lookalike.encoders.preprocessing import Preprocessing
from training.bases.registry import load_base
from training.lite.base import LITE_TRAITS
from training.network.frozen import run_frozen_stages
from training.network.stages import freeze
from training.network.trainable import Trainable, Traits
from training.settings import Base


def model(head: int, frozen: float) -> tuple[Trainable, list[torch.nn.Module]]:
    torch.manual_seed(0)
    base = Base(encoder="lite", head=head, freeze=frozen)
    trainable = load_base(base, text=False)
    still = freeze(trainable, base)
    trainable.modules().eval()
    return trainable, still


def pixels(side: int, rows: int = 3) -> Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8)


def gradients(trainable: Trainable, rows: Tensor) -> Tensor:
    trainable.modules().zero_grad()
    (rows @ rows.T).square().sum().backward()
    return torch.cat([p.grad.flatten() for p in trainable.modules().parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("head", "frozen", "expected"),
    [
        (16, 0.4, 6),  # scaling, stem and its normalisation, three blocks
        (16, 0.9, 10),
        (0, 0.5, 7),
        (0, 0.8, 8),  # the later blocks' outputs are read elsewhere too
    ],
)
def test_rows_and_gradients_equal_torch_at_any_size(head: int, frozen: float, expected: int) -> None:
    plain, _ = model(head, frozen)
    fast, still = model(head, frozen)
    assert run_frozen_stages(fast, still, half=False) == expected
    for side, rows in ((64, 18), (65, 3), (64, 2)):  # odd sides are padded otherwise; 18 rows are 16 and 2
        by_torch, by_openvino = (each.encode_images(pixels(side, rows)) for each in (plain, fast))
        torch.testing.assert_close(by_openvino, by_torch, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(gradients(fast, by_openvino), gradients(plain, by_torch), atol=1e-3, rtol=1e-2)


def test_weights_and_copies_stay_the_same() -> None:
    plain, _ = model(16, 0.4)
    fast, still = model(16, 0.4)
    run_frozen_stages(fast, still, half=False)
    copied = copy.deepcopy(fast.towers.image).state_dict()
    for name, value in plain.towers.image.state_dict().items():
        assert torch.equal(value, copied[name])
    assert run_frozen_stages(fast, still, half=False) == 6  # once more, from the modules themselves
    torch.testing.assert_close(fast.encode_images(pixels(64)), plain.encode_images(pixels(64)), atol=2e-5, rtol=1e-4)


def test_later_stages_get_bf16() -> None:
    fast, still = model(16, 0.4)
    run_frozen_stages(fast, still, half=True)
    backbone = next(each for each in fast.towers.image.modules() if isinstance(each, LiteBackbone))
    network = backbone.network
    with torch.autocast("cpu", torch.bfloat16):
        rows = network.blocks[2](network.bn1(network.conv_stem(backbone.standardize(pixels(64, 2)))))
    assert rows.dtype == torch.bfloat16
    assert rows.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("frozen", [0.0, 0.1])
def test_torch_runs_less_than_a_stage(frozen: float) -> None:
    fast, still = model(16, frozen)
    assert run_frozen_stages(fast, still, half=False) in {0, 3}
    assert fast.encode_images(pixels(64)).shape == (3, 16)


def test_other_towers_are_unchanged() -> None:
    tower = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    preprocessing = Preprocessing(8, 8, "squash", "bilinear", (0.0,) * 3, (1.0,) * 3)
    for traits in (Traits(), LITE_TRAITS):
        trainable = Trainable(Towers(tower, None), Architecture("lite"), preprocessing, 4, traits=traits)
        assert run_frozen_stages(trainable, list(tower), half=False) == 0
        assert "forward" not in vars(tower[0])
