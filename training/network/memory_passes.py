"""Removal of avoidable passes over memory, which take half of a convolutional network's training step on a CPU.

PyTorch's in-place activations keep a copy, for their gradient, of what they overwrite, though ReLU6 needs its outputs
alone. The gradient that pooling spreads over the pixels is not in channels-last order, and batch normalization's
backward pass takes ten times as long for it. benchmarks/history/training.md has the figures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def reduce_memory_passes(network: nn.Module) -> None:
    """Make activations keep no copy, and give trained norms their gradients in channels-last order.

    Args:
        network: weights channels last; its outputs stay the same.
    """
    for module in network.modules():
        attributes: dict[str, Any] = vars(module)
        if isinstance(module, nn.ReLU6) and module.inplace:
            attributes["forward"] = _relu6
        elif "inplace" in attributes:
            attributes["inplace"] = False
        if isinstance(module, _BatchNorm) and any(weight.requires_grad for weight in module.parameters()):
            module.register_full_backward_pre_hook(_channels_last)


def _relu6(x: Tensor) -> Tensor:
    y: Tensor = _ReLU6.apply(x) if x.requires_grad else nn.functional.relu6(x)  # tracing supports only the latter
    return y


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
        result: Tensor = torch.ops.aten.hardtanh_backward(gradient, y, 0, 6)
        return result


def _channels_last(_: nn.Module, gradients: tuple[Tensor, ...] | Tensor) -> tuple[Tensor, ...]:
    return tuple(g.contiguous(memory_format=torch.channels_last) if g.ndim == 4 else g for g in gradients)
