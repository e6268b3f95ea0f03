"""Rounds EfficientNet-Lite's weights to bf16, and corrects the mean error that the rounding adds.

A rounded weight errs the same way at every pixel, so that its error does not average out over an image as that of
rounded activations does. What it adds is known without an image: behind batch norm and ReLU6 an activation is a
clipped normal variable of known mean and deviation, and the error's expectation, rounding times mean input, goes into
the bias (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2 and
appendix C). Convolutions whose input is a sum of residual branches are only rounded.

Dimension letters: o output and c input channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_CEILING = 6.0  # ReLU6
_MIN_DEVIATION = 1e-9


@torch.no_grad()
def round_to_bf16(network: nn.Module) -> None:
    """Round a network of convolutions, each followed by a batch norm, in place.

    Each batch norm's scale goes into the weights (kept as float32 of bf16's values), its shift into the bias.

    Args:
        network: timm's EfficientNet-Lite in eval mode, float32.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    inputs: Tensor | None = None
    for convolution, norm in zip(layers[::2], layers[1::2], strict=True):
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        ahead = inputs
        inputs = clipped_mean(norm.bias, norm.weight.abs()) if _is_clipped(norm) else None
        _fold(convolution, norm, ahead)


def clipped_mean(mean: Tensor, deviation: Tensor) -> Tensor:
    """E[min(max(x, 0), 6)] of normal x, element by element."""
    return _above(mean, deviation) - _above(mean - _CEILING, deviation)


def _above(mean: Tensor, deviation: Tensor) -> Tensor:
    """E[max(x, 0)] of normal x."""
    deviation = deviation.clamp(min=_MIN_DEVIATION)
    z = mean / deviation
    density = torch.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    expected: Tensor = mean * torch.special.ndtr(z) + deviation * density
    return expected


def _is_clipped(norm: nn.BatchNorm2d) -> bool:
    return any(isinstance(each, nn.ReLU6) for each in norm.modules())


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, inputs: Tensor | None) -> None:
    """`inputs` (c,): the mean of each input channel, where it is known."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = convolution.weight * scale[:, None, None, None]
    rounded = weight.bfloat16().float()
    bias = norm.bias - norm.running_mean * scale
    if inputs is not None:
        error = (rounded - weight).sum((2, 3))  # (o, c of a group)
        bias -= error[:, 0] * inputs if convolution.groups > 1 else error @ inputs
    convolution.weight.copy_(rounded)
    norm.bias.copy_(bias)
    norm.weight.fill_(1.0)
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0 - norm.eps)
