"""Reparametrization of batch normalization: from the statistics of pretraining to those of the training images.

A pretrained network normalizes by the statistics of its own images. Normalized by batches of other images (such as
small ones that were enlarged), its features break down in the first step: channels that hardly vary are scaled up to
unit variance. Expressed in the training images' statistics, with scale and shift adjusted, every layer keeps its
outputs, and training by batch statistics starts from there.

Dimension letters: n images, c channels, R side of a cached image, S side of the input.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lookalike.types import UInt8
from training.data.image_cache import sample_batches
from training.settings import Settings

_SAMPLE_IMAGES = 1024


def trains_batch_norm(settings: Settings) -> bool:
    """Whether training normalizes by batch statistics; never in chunks, whose statistics are not the batch's."""
    return not (settings.base.freeze_norm or settings.optimizer.chunk)


@torch.no_grad()
def reparametrize_batch_norm(network: nn.Module, pixels: UInt8, side: int) -> None:
    """Set each layer's running statistics to the sample's, and adjust scale and shift so that eval outputs stay.

    With running mean m and variance v, scale g and shift b, and the sample's statistics m', v' at the layer's input:

        g' = g sqrt((v' + eps) / (v + eps)),   b' = b + g (m' - m) / sqrt(v + eps)

    gives g' (x - m') / sqrt(v' + eps) + b' = g (x - m) / sqrt(v + eps) + b.

    Args:
        network: takes (n, 3, S, S) uint8; left in eval mode.
        pixels: (n, 3, R, R) uint8, the cached training images.
        side: S at the start of training.
    """
    network.eval()
    moments = {layer: _Moments() for layer in network.modules() if isinstance(layer, _BatchNorm)}
    hooks = [layer.register_forward_pre_hook(partial(_add_inputs, own)) for layer, own in moments.items()]
    for batch in sample_batches(pixels, _SAMPLE_IMAGES, side):
        network(batch)
    for hook in hooks:
        hook.remove()
    for layer, own in moments.items():
        if own.count:
            _reparametrize(layer, *own.result())


class _Moments:
    """Running sums over the sample, (c,) float64."""

    def __init__(self) -> None:
        self.count = 0
        self._sum, self._squares = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    def add(self, inputs: Tensor) -> None:
        """Add a layer's inputs, (n, c, ...)."""
        others = [axis for axis in range(inputs.ndim) if axis != 1]
        variance, mean = (each.double() for each in torch.var_mean(inputs.float(), others, correction=0))
        count = inputs.numel() // inputs.shape[1]
        self.count += count
        self._sum = self._sum + count * mean
        self._squares = self._squares + count * (variance + mean.square())

    def result(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance."""
        mean = self._sum / self.count
        return mean, (self._squares / self.count - mean.square()).clamp(min=0)


def _add_inputs(moments: _Moments, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    moments.add(inputs[0])


def _reparametrize(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if layer.running_mean is None or layer.running_var is None or not layer.affine:
        return  # it always uses batch statistics, or has no scale and shift to adjust
    before = (layer.running_var.double() + layer.eps).sqrt()
    after = (variance + layer.eps).sqrt()
    scale = layer.weight.double()
    layer.bias.add_((scale * (mean - layer.running_mean) / before).to(layer.bias))
    layer.weight.copy_(scale * after / before)
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)
