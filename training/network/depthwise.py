"""Fast gradients of depthwise convolutions on a CPU, where oneDNN uses slow reference code for some shapes.

The gradient by the weight is slow in either precision where a kernel is more than three columns wide. It is computed
from tiles of three columns, in half to a fifth of the time. With stride 2 the gradient by the input takes up to a
hundred times as long in bf16 as in fp32. It is computed in fp32. With both, bf16 pays off for networks such as
EfficientNet (benchmarks/history/training.md). Letters: n rows, c channels, h, w an image's sides, k a kernel's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from typing_extensions import override

Pair = Sequence[int]
_MAX_FAST_COLUMNS = 3
"""Width of the widest kernel whose gradient oneDNN has fast code for."""


class DepthwiseGradients(TorchFunctionMode):
    """A context in which depthwise `conv2d` on a CPU uses this module's gradients where they are faster."""

    @override
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is torch.conv2d and not kwargs and len(args) == 7 and _slow(*args):
            x, weight, bias, *geometry = args
            return _Depthwise.apply(x, weight, bias, *geometry)
        return function(*args, **(kwargs or {}))


def _slow(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Any, dilation: Pair, groups: int
) -> bool:
    """Whether a convolution is depthwise, needs gradients, and torch would be slow to compute them on a CPU."""
    return (
        groups == x.shape[1] == weight.shape[0]
        and not isinstance(padding, str)
        and x.device.type == "cpu"
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and (_autocasts_to_bf16() or (weight.shape[3] > _MAX_FAST_COLUMNS and x.dtype == weight.dtype == torch.float32))
    )


def _autocasts_to_bf16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


class _Geometry(NamedTuple):
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


class _Depthwise(torch.autograd.Function):
    """(n, c, h, w) by a kernel (c, 1, k, k) -> (n, c, h', w'); bf16 in bf16 autocast, else fp32."""

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
        dtype = torch.bfloat16 if _autocasts_to_bf16() else torch.float32
        x = x.to(dtype)
        ctx.save_for_backward(x, weight)
        ctx.geometry = _Geometry(list(stride), list(padding), list(dilation), groups)
        ctx.biased = bias is not None
        with torch.autocast("cpu", enabled=False):
            bias = None if bias is None else bias.to(dtype)
            return torch.conv2d(x, weight.to(dtype), bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            dtype = x.dtype if max(ctx.geometry.stride) == 1 else torch.float32
            by_x = _by_input(gradient.to(dtype), x.to(dtype), weight.to(dtype), ctx.geometry).to(x.dtype)
        if ctx.needs_input_grad[1]:
            by_weight = _by_weight(gradient, x, weight.to(x.dtype), ctx.geometry).to(weight.dtype)
        if ctx.biased and ctx.needs_input_grad[2]:
            by_bias = gradient.float().sum((0, 2, 3))
        return by_x, by_weight, by_bias, None, None, None, None


def _by_input(gradient: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *geometry[:3], False, [0, 0], geometry.groups, [True, False, False]
    )[0]
    return result


def _by_weight(gradient: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    """(n, c, h', w') -> (c, 1, k, k)."""
    stride, padding, dilation, groups = geometry
    if weight.shape[3] <= _MAX_FAST_COLUMNS:
        direct: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [False, True, False]
        )[1]
        return direct
    result = torch.empty_like(weight)
    lefts = _tile_starts(weight.shape[3])
    width = (gradient.shape[3] - 1) * stride[1] + (_MAX_FAST_COLUMNS - 1) * dilation[1] + 1  # columns of x under a tile
    parts = _column_parts(x, padding[1], width, [left * dilation[1] for left in lefts])
    for left, part in zip(lefts, parts, strict=True):
        tile = result[..., left : left + _MAX_FAST_COLUMNS]
        unpadded = _Geometry(stride, [padding[0], 0], dilation, groups)
        tile.copy_(_by_weight(gradient, part, tile.contiguous(), unpadded))
    return result


def _column_parts(x: Tensor, padding: int, width: int, offsets: Sequence[int]) -> Iterator[Tensor]:
    """(n, c, h, w) -> for each offset (n, c, h, width) channels last: the zero-padded x from that column on.

    Where the columns after an offset end in padding alone, all parts are views of one copy: its rows are contiguous,
    and the zeros at the end of a row serve as the padding at the start of the next.
    """
    n, c, h, w = x.shape
    if max(offsets) <= padding and padding + w <= width:
        flat = x.new_zeros(n * h * width + max(offsets), c)
        flat[: n * h * width].view(n, h, width, c)[:, :, padding : padding + w] = x.permute(0, 2, 3, 1)
        yield from (flat[k : k + n * h * width].view(n, h, width, c).permute(0, 3, 1, 2) for k in offsets)
        return
    for offset in offsets:
        before = padding - offset
        part = torch.nn.functional.pad(x, (before, width - before - w))  # negative values crop
        yield part.contiguous(memory_format=torch.channels_last)


def _tile_starts(width: int) -> list[int]:
    """Return the first columns of tiles of three that cover a kernel; the last two may overlap, with equal values.

    >>> _tile_starts(5), _tile_starts(7), _tile_starts(9)
    ([0, 2], [0, 3, 4], [0, 3, 6])
    """
    return [*range(0, width - _MAX_FAST_COLUMNS, _MAX_FAST_COLUMNS), width - _MAX_FAST_COLUMNS]
