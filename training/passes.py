"""Passes over memory that a convolutional network's training step can do without: half of it on a CPU is such passes.

An activation in place keeps a copy, for its gradient, of what it overwrites; out of place it need not. The gradient
that pooling spreads over the pixels does not lie channels last, and batch normalisation's backward pass takes ten times
as long for it. Figures stand in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def spare_passes(network: nn.Module) -> None:
    """From now on activations write elsewhere, and norms that learn get their gradients channels last.

    Args:
        network: weights channels last; what it computes stays the same.
    """
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
        if isinstance(module, _BatchNorm) and any(weight.requires_grad for weight in module.parameters()):
            module.register_full_backward_pre_hook(_channels_last)


def _channels_last(_: nn.Module, gradients: tuple[Tensor, ...] | Tensor) -> tuple[Tensor, ...]:
    return tuple(g.contiguous(memory_format=torch.channels_last) if g.ndim == 4 else g for g in gradients)
