"""Batch normalisation that starts from the training images' statistics without changing what the network says.

A pretrained network normalises by its own images' statistics. By a batch's of other images (small ones enlarged,
say) its features fall apart at the first step: channels that hardly vary there are blown up to unit variance. Restated
in the training images' statistics, with scale and shift making up for the difference, every layer says what it said
before, and training by each batch's statistics begins from there.

Dimension letters: n images, c channels, S side of an image.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lookalike.types import UInt8
from training.data.image_cache import spread_sample
from training.settings import Settings

_SAMPLE = 1024


def norms_learn(settings: Settings) -> bool:
    """Whether training normalises by each batch's statistics; never in chunks, whose statistics are not the batch's."""
    return not (settings.base.freeze_norm or settings.optimizer.chunk)


@torch.no_grad()
def restate_norms(network: nn.Module, pixels: UInt8, side: int) -> None:
    """Rewrites each layer's running statistics, scale and shift; its outputs in eval mode stay the same.

    With running mean m and variance v, scale g and shift b, and the sample's statistics m', v' at the layer's input:

        g' = g sqrt((v' + eps) / (v + eps)),   b' = b + g (m' - m) / sqrt(v + eps)

    gives g' (x - m') / sqrt(v' + eps) + b' = g (x - m) / sqrt(v + eps) + b.

    Args:
        network: takes (n, 3, S, S) uint8; left in eval mode.
        pixels: (n, 3, R, R) uint8, the images kept for training.
        side: S, what training begins at.
    """
    network.eval()
    seen = {layer: _Moments() for layer in network.modules() if isinstance(layer, _BatchNorm)}
    hooks = [layer.register_forward_pre_hook(partial(_add, moments)) for layer, moments in seen.items()]
    for batch in spread_sample(pixels, _SAMPLE, side):
        network(batch)
    for hook in hooks:
        hook.remove()
    for layer, moments in seen.items():
        if moments.count:
            _restate(layer, *moments.result())


class _Moments:
    """Sums over the sample, (c,) float64."""

    def __init__(self) -> None:
        self.count = 0
        self._sum, self._squares = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    def add(self, inputs: Tensor) -> None:
        """(n, c, ...)."""
        others = [axis for axis in range(inputs.ndim) if axis != 1]
        variance, mean = (each.double() for each in torch.var_mean(inputs.float(), others, correction=0))
        count = inputs.numel() // inputs.shape[1]
        self.count += count
        self._sum = self._sum + count * mean
        self._squares = self._squares + count * (variance + mean.square())

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and variance."""
        mean = self._sum / self.count
        return mean, (self._squares / self.count - mean.square()).clamp(min=0)


def _add(moments: _Moments, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    moments.add(inputs[0])


def _restate(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if layer.running_mean is None or layer.running_var is None or not layer.affine:
        return  # always by the batch, or nothing that could make up for the difference
    before = (layer.running_var.double() + layer.eps).sqrt()
    now = (variance + layer.eps).sqrt()
    scale = layer.weight.double()
    layer.bias.add_((scale * (mean - layer.running_mean) / before).to(layer.bias))
    layer.weight.copy_(scale * now / before)
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)
