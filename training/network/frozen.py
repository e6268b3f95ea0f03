"""Frozen first stages of a convolutional network, run by OpenVINO while torch trains the rest.

Frozen stages need no gradient, and OpenVINO, which folds normalization and activation into the convolutions, takes a
quarter of torch's time for them. They run in fp32 also where the rest is trained in bf16, because most of bf16's error
arises in the first layers (of EfficientNet-Lite0's features at 160 pixels, normalized by each batch, the mean cosine to
fp32 is 0.979 with all layers in bf16 and 0.9997 this way). The modules keep their weights, so that `state_dict` and
export do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.network.trainable import Trainable

_MIN_MODULES = 3
"""Scaling, stem and its normalization: fewer are not worth a switch between libraries."""


def run_frozen_stages(trainable: Trainable, frozen: Sequence[nn.Module], *, half: bool) -> int:
    """Let the first module compute all leading frozen modules by OpenVINO; the others return their inputs.

    Args:
        trainable: its image tower is on the CPU.
        frozen: modules without gradients, in eval mode.
        half: whether the rest computes in bf16.

    Returns:
        Number of modules that OpenVINO runs; 0 where the tower's leading modules are unknown or trained, or OpenVINO is
        not installed.
    """
    modules = _leading_frozen(trainable, frozen)
    if len(modules) < _MIN_MODULES or find_spec("openvino") is None:
        return 0
    from training.network.fragment import Fragment

    for module in modules:
        vars(module).pop("forward", None)  # set by an earlier loop with the same tower
    fragment = Fragment(modules, torch.get_num_threads())

    def run_all(pixels: Tensor) -> Tensor:
        rows = torch.from_numpy(fragment(np.ascontiguousarray(pixels.detach().numpy())))
        return rows.to(torch.bfloat16 if half else torch.float32).contiguous(memory_format=torch.channels_last)

    _replace_forward(modules[0], run_all)
    for module in modules[1:]:
        _replace_forward(module, _identity)
    return len(modules)


def _replace_forward(module: Any, function: Any) -> None:
    module.forward = function


def _identity(rows: Tensor) -> Tensor:
    return rows


def _leading_frozen(trainable: Trainable, frozen: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the leading modules up to the first that is trained; the first module has no weights to train."""
    leading_modules = trainable.traits.leading_modules
    modules = [] if leading_modules is None else leading_modules(trainable.towers.image)
    ids = {id(module) for module in frozen}
    return [*modules[:1], *takewhile(lambda module: id(module) in ids, modules[1:])]
