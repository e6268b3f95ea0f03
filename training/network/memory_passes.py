"""Passes over memory that a convolutional network's training step can do without: half of it on a CPU is such passes.

PyTorch's activations in place keep a copy, for their gradient, of what they overwrite, though ReLU6 needs only what it
wrote. The gradient that pooling spreads over the pixels does not lie channels last, and batch normalisation's backward
pass takes ten times as long for it. Figures stand in benchmarks/RESULTS.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def spare_passes(network: nn.Module) -> None:
    """From now on no activation keeps a copy, and norms that learn get their gradients channels last.

    Args:
        network: weights channels last; what it computes stays the same.
    """
    for module in network.modules():
        own: dict[str, Any] = vars(module)
        if isinstance(module, nn.ReLU6) and module.inplace:
            own["forward"] = _relu6
        elif "inplace" in own:
            own["inplace"] = False
        if isinstance(module, _BatchNorm) and any(weight.requires_grad for weight in module.parameters()):
            module.register_full_backward_pre_hook(_channels_last)


def _relu6(x: Tensor) -> Tensor:
    found: Tensor = _ReLU6.apply(x) if x.requires_grad else nn.functional.relu6(x)  # tracing knows only the latter
    return found


class _ReLU6(torch.autograd.Function):
    """min(max(x, 0), 6) in place; its gradient is 0 where that is 0 or 6."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x.clamp_(0, 6))
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        found: Tensor = torch.ops.aten.hardtanh_backward(gradient, y, 0, 6)
        return found


def _channels_last(_: nn.Module, gradients: tuple[Tensor, ...] | Tensor) -> tuple[Tensor, ...]:
    return tuple(g.contiguous(memory_format=torch.channels_last) if g.ndim == 4 else g for g in gradients)
