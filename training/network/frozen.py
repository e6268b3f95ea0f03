"""The frozen first stages of EfficientNet, run by OpenVINO while torch trains the rest.

What stays as it is needs no gradient, and OpenVINO, which folds normalisation and activation into the convolutions,
takes a quarter of torch's time for it. It is done in fp32 also where the rest is trained in bf16: most of what bf16
costs is lost in the first layers (of `lite`'s features at 160 pixels, normalised by each batch, the mean cosine to fp32
is 0.979 with all of them in bf16, 0.9997 so). The modules keep their weights; `state_dict` and export know nothing of
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from lookalike.encoders.exported.towers import PooledLite
from lookalike.encoders.lite.towers import FIRST_STAGE, LiteBackbone


def run_frozen_stages(tower: nn.Module, still: Sequence[nn.Module], *, half: bool) -> int:
    """From now on the first of the modules does the work of all frozen stages, the others pass on what they get.

    Args:
        tower: the image tower, on the CPU.
        still: modules that stay as they are, in eval mode.
        half: whether the rest computes in bf16.

    Returns:
        Number of modules that are run so; 0 where the tower is no EfficientNet, its first stages are trained, or
        OpenVINO is not installed.
    """
    chain = _chain(tower, still)
    if len(chain) < 3 or find_spec("openvino") is None:
        return 0
    from training.network.fragment import Fragment

    for module in chain:
        vars(module).pop("forward", None)  # of an earlier loop over the same tower
    run = Fragment(chain, torch.get_num_threads())

    def first(pixels: Tensor) -> Tensor:
        rows = torch.from_numpy(run(np.ascontiguousarray(pixels.detach().numpy())))
        return rows.to(torch.bfloat16 if half else torch.float32).contiguous(memory_format=torch.channels_last)

    for module, function in zip(chain, [first, *[_passed_on] * (len(chain) - 1)], strict=True):
        _run_by(module, function)
    return len(chain)


def _run_by(module: Any, function: Any) -> None:
    module.forward = function


def _passed_on(rows: Tensor) -> Tensor:
    return rows


def _chain(tower: nn.Module, still: Sequence[nn.Module]) -> list[nn.Module]:
    """What the input passes first and that stays as it is, as far as nobody looks between: scaling, stem, blocks."""
    backbone = next((module for module in tower.modules() if isinstance(module, LiteBackbone)), None)
    if backbone is None:
        return []
    network: EfficientNet = backbone.network
    seen = len(network.blocks) if isinstance(backbone, PooledLite) else FIRST_STAGE + 1
    known = {id(module) for module in still}
    chain: list[nn.Module] = [backbone.standardize]
    for module in (network.conv_stem, network.bn1, *list(network.blocks)[:seen]):
        if id(module) not in known:
            break
        chain.append(module)
    return chain
