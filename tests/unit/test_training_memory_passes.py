"""Layers with fewer passes over memory have the same values and gradients."""

import copy

import torch
from timm.models.efficientnet import tf_efficientnet_lite0

from training.network.memory_passes import reduce_memory_passes


def gradients(network, pixels):
    out = network.bn2(network.conv_head(network.blocks[6](pixels))).mean((2, 3))
    out.square().sum().backward()
    return [out.detach(), *(weight.grad for weight in network.parameters() if weight.grad is not None)]


def test_values_and_gradients_stay_the_same():
    torch.manual_seed(0)
    plain = tf_efficientnet_lite0(pretrained=False).double().to(memory_format=torch.channels_last).train()
    reduced = copy.deepcopy(plain)
    reduce_memory_passes(reduced)
    pixels = torch.randn(4, 192, 5, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    for before, after in zip(gradients(plain, pixels), gradients(reduced, pixels), strict=True):
        assert torch.allclose(before, after, rtol=1e-9, atol=1e-12)


def test_norm_before_pooling_gets_channels_last_gradient():
    network = tf_efficientnet_lite0(pretrained=False).to(memory_format=torch.channels_last).train()
    reduce_memory_passes(network)
    seen = []
    network.bn2.register_full_backward_pre_hook(lambda _, gradients: seen.append(gradients[0]))
    gradients(network, torch.randn(2, 192, 5, 5).contiguous(memory_format=torch.channels_last))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_other_activations_and_frozen_norms():
    network = tf_efficientnet_lite0(pretrained=False)
    network.bn1.requires_grad_(False)
    swish = torch.nn.SiLU(inplace=True)
    reduce_memory_passes(torch.nn.ModuleList([network, swish]))
    assert not swish.inplace
    assert not network.bn1._backward_pre_hooks
    assert network.bn2._backward_pre_hooks


def test_weights_and_copies_stay_the_same():
    network = tf_efficientnet_lite0(pretrained=False).eval()
    pixels = torch.randn(1, 3, 64, 64)
    expected = network(pixels)
    names = list(network.state_dict())
    reduce_memory_passes(network)
    reduce_memory_passes(network)
    copied = copy.deepcopy(network)
    assert list(copied.state_dict()) == names
    assert torch.equal(copied(pixels), expected)
