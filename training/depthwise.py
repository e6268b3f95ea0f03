"""Depthwise convolutions whose bf16 gradients do not take a reference loop on a CPU.

oneDNN's bf16 backward passes through depthwise convolutions are fast for some shapes only. With stride 2 the gradient
by the input takes up to a hundred times as long as in fp32: it is taken in fp32. With a kernel of 5 x 5 the gradient by
the weight takes three times as long: it is put together from tiles of 3 x 3, which is faster than either. So bf16 pays
for EfficientNet and its kin (benchmarks/RESULTS.md). Letters: n rows, c channels, h, w a picture's sides, k a kernel's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Pair = Sequence[int]


class DepthwiseGradients(TorchFunctionMode):
    """While it is entered, depthwise `conv2d` in bf16 autocast on a CPU takes its gradients as this module says."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See `torch.overrides.TorchFunctionMode`."""
        if function is torch.conv2d and not kwargs and len(args) == 7 and _slow(*args):
            x, weight, bias, *geometry = args
            return _Depthwise.apply(x, weight, bias, *geometry)
        return function(*args, **(kwargs or {}))


def _slow(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Any, dilation: Pair, groups: int
) -> bool:
    """Whether a convolution is depthwise, wants gradients and would run in bf16 on a CPU."""
    return (
        groups == x.shape[1] == weight.shape[0]
        and not isinstance(padding, str)
        and x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
    )


class _Geometry(NamedTuple):
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


class _Depthwise(torch.autograd.Function):
    """(n, c, h, w) by a kernel (c, 1, k, k) -> (n, c, h', w') bf16."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Tensor:
        x = x.bfloat16()
        ctx.save_for_backward(x, weight)
        ctx.geometry = _Geometry(list(stride), list(padding), list(dilation), groups)
        ctx.biased = bias is not None
        with torch.autocast("cpu", enabled=False):
            return torch.conv2d(
                x, weight.bfloat16(), None if bias is None else bias.bfloat16(), stride, padding, dilation, groups
            )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            dtype = torch.bfloat16 if max(ctx.geometry.stride) == 1 else torch.float32
            by_x = _by_input(gradient.to(dtype), x.to(dtype), weight.to(dtype), ctx.geometry).to(x.dtype)
        if ctx.needs_input_grad[1]:
            by_weight = _by_weight(gradient, x, weight.bfloat16(), ctx.geometry).to(weight.dtype)
        if ctx.biased and ctx.needs_input_grad[2]:
            by_bias = gradient.float().sum((0, 2, 3))
        return by_x, by_weight, by_bias, None, None, None, None


def _by_input(gradient: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *geometry[:3], False, [0, 0], geometry.groups, [True, False, False]
    )[0]
    return found


def _by_weight(gradient: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    """(n, c, h', w') -> (c, 1, k, k); a kernel above 3 x 3 is put together from tiles of 3 x 3."""
    stride, padding, dilation, groups = geometry
    if max(weight.shape[2:]) <= 3:
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [False, True, False]
        )[1]
        return found
    x = torch.nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = ((length - 1) * step + 1 for length, step in zip(gradient.shape[2:], stride, strict=True))
    found = torch.empty_like(weight)
    for top in _tiles(weight.shape[2]):
        for left in _tiles(weight.shape[3]):
            tile = found[:, :, top : top + 3, left : left + 3]
            height, width = ((size - 1) * wide for size, wide in zip(tile.shape[2:], dilation, strict=True))
            y, z = top * dilation[0], left * dilation[1]
            part = x[:, :, y : y + rows + height, z : z + columns + width].contiguous(memory_format=torch.channels_last)
            tile.copy_(_by_weight(gradient, part, tile.contiguous(), _Geometry(stride, [0, 0], dilation, groups)))
    return found


def _tiles(size: int) -> list[int]:
    """Where tiles of 3 begin that cover a kernel's side; the last two may overlap, and then agree.

    >>> _tiles(3), _tiles(5), _tiles(7)
    ([0], [0, 2], [0, 3, 4])
    """
    return [*range(0, size - 3, 3), max(0, size - 3)]
