"""The weights of `lite` rounded to bf16: the mean error of rounding is corrected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lookalike.encoders.lite import rounding
from lookalike.encoders.lite.constants import LITE_PREPROCESSING
from lookalike.encoders.lite.loading import load_image_tower
from lookalike.encoders.lite.rounding import round_to_bf16


def photographs() -> torch.Tensor:
    """(4, 3, S, S) uint8."""
    data = pytest.importorskip("skimage.data")
    images = [data.chelsea(), data.coffee(), data.rocket(), data.immunohistochemistry()]
    return torch.from_numpy(np.stack([LITE_PREPROCESSING(Image.fromarray(each)) for each in images]))


def test_mean_of_a_clipped_normal_variable() -> None:
    mean, deviation = (
        torch.tensor([-1.0, 0.0, 0.5, 5.0, 7.0, 2.0, -2.0]),
        torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0, 0.0, 0.0]),
    )
    drawn = mean + deviation * torch.randn(400_000, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        rounding.clipped_mean(mean, deviation), drawn.clamp(0.0, 6.0).mean(0), atol=0.02, rtol=0.0
    )


def test_weights_become_bf16_and_norms_only_add() -> None:
    tower = load_image_tower()
    round_to_bf16(tower)
    convolutions = [layer for layer in tower.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 49
    for layer in convolutions:
        assert torch.equal(layer.weight, layer.weight.bfloat16().float())
    for norm in (layer for layer in tower.modules() if isinstance(layer, nn.BatchNorm2d)):
        zeros = torch.zeros(1, norm.num_features, 1, 1)
        torch.testing.assert_close(nn.BatchNorm2d.forward(norm, zeros)[0, :, 0, 0], norm.bias)
        torch.testing.assert_close(nn.BatchNorm2d.forward(norm, zeros + 1)[0, :, 0, 0], norm.bias + 1)


@torch.inference_mode()
def test_correction_is_most_of_the_error_of_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photographs()
    exact = load_image_tower()(pixels)
    corrected = load_image_tower()
    round_to_bf16(corrected)
    with monkeypatch.context() as patch:
        patch.setattr(rounding, "_is_clipped", lambda norm: False)  # no input's mean is known
        blind = load_image_tower()
        round_to_bf16(blind)
    errors = [1.0 - (tower(pixels) * exact).sum(1).min().item() for tower in (blind, corrected)]
    assert 0 < errors[1] < errors[0] / 3
