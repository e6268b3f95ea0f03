"""Depthwise convolutions have autograd's values and gradients, except for rounding; other layers are unchanged."""

import pytest
import torch
from torch import nn

from training.loop.precision import uses_bf16
from training.network.depthwise import DepthwiseGradients, _Depthwise

SHAPES = [(3, 1, 9), (5, 1, 9), (3, 2, 9), (5, 2, 8), (3, 2, 8), (7, 1, 8), (7, 2, 9)]  # kernel, stride, side


def layer(kernel, stride, bias=True):
    torch.manual_seed(kernel * 10 + stride)
    return nn.Conv2d(16, 16, kernel, stride, kernel // 2, groups=16, bias=bias)


def gradients(module, pixels, direction, half):
    """Return output, and gradients by input, weight and bias; with `half` None autograd's in fp32."""
    pixels = pixels.clone().requires_grad_()
    module.zero_grad()
    if half is None:
        out = module(pixels)
    else:
        with torch.autocast("cpu", torch.bfloat16, enabled=half), DepthwiseGradients():
            out = module(pixels)
    (out.float() * direction).sum().backward()
    return [out.detach(), pixels.grad, *(parameter.grad.clone() for parameter in module.parameters())]


@pytest.mark.parametrize(("kernel", "stride", "side"), SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("half", "tolerance"), [(True, 0.01), (False, 1e-5)])
def test_values_and_gradients_equal_autograd(kernel, stride, side, bias, half, tolerance):
    module = layer(kernel, stride, bias)
    pixels = torch.randn(6, 16, side, side).contiguous(memory_format=torch.channels_last)
    direction = torch.randn_like(module(pixels))
    for ours, exact in zip(
        gradients(module, pixels, direction, half), gradients(module, pixels, direction, None), strict=True
    ):
        assert ours.shape == exact.shape
        assert (ours.float() - exact).norm() < tolerance * exact.norm()


def test_output_equals_autocast_exactly():
    module, pixels = layer(5, 2), torch.randn(2, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        plain = module(pixels)
        with DepthwiseGradients():
            ours = module(pixels)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("kernel", [3, (5, 3), (3, 5)])
def test_dilated_kernel_without_padding(kernel):
    module = nn.Conv2d(4, 4, kernel, dilation=2, groups=4)
    pixels = torch.randn(2, 4, 11, 12)
    direction = torch.randn_like(module(pixels))
    for ours, exact in zip(
        gradients(module, pixels, direction, True), gradients(module, pixels, direction, None), strict=True
    ):
        assert (ours.float() - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize(
    "module",
    [nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 16, 3, groups=8), nn.Linear(9, 4)],
    ids=["dense", "grouped", "multiplied", "linear"],
)
def test_other_layers_are_unchanged(module, monkeypatch):
    monkeypatch.setattr(_Depthwise, "apply", lambda *_: pytest.fail("the depthwise function was called"))
    with torch.autocast("cpu", torch.bfloat16), DepthwiseGradients():
        module(torch.randn(2, 8, 9, 9)).float().sum().backward()


@pytest.mark.parametrize("half", [True, False])
def test_unneeded_replacements_are_skipped(half, monkeypatch):
    monkeypatch.setattr(_Depthwise, "apply", lambda *_: pytest.fail("the depthwise function was called"))
    module, pixels = layer(3, 1), torch.randn(2, 16, 9, 9)
    with torch.autocast("cpu", torch.bfloat16, enabled=half), DepthwiseGradients():
        with torch.no_grad():
            module(pixels)
        if not half:
            module(pixels).sum().backward()


def test_frozen_weights_pass_gradients_on():
    module = layer(3, 1).requires_grad_(False)
    pixels = torch.randn(2, 16, 9, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), DepthwiseGradients():
        module(pixels).float().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.dtype == torch.float32
    assert pixels.grad.abs().sum() > 0


@pytest.mark.parametrize("pays", [True, False])
def test_auto_is_the_fastest_precision_of_the_cpu(pays, monkeypatch):
    monkeypatch.setattr("training.loop.precision.bf16_is_faster", lambda: pays)
    assert uses_bf16("auto", "cpu") is pays
    assert uses_bf16("bf16", "cpu")
    assert not uses_bf16("fp32", "cpu")


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_auto_depends_on_the_gpus_capability(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert uses_bf16("auto", "cuda") is expected
