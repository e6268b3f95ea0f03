"""The three published backbones of `lite`: their weights come as Python packages, so that no model hub is needed."""

from __future__ import annotations

import numpy as np
import safetensors.torch
import torch
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0
from torch import Tensor

from lookalike.encoders.lite import minilm, use
from lookalike.encoders.lite.minilm import MiniLM
from lookalike.encoders.lite.use import MultilingualUSE
from lookalike.encoders.lite.weights import image_weights, minilm_weights, use_weights
from lookalike.errors import WeightsInvalid


def load_efficientnet() -> EfficientNet:
    """Return timm's EfficientNet-Lite0 with ImageNet weights, in eval mode, 1000-way classifier included.

    The published tensors have other names, but the same shapes in the same order as timm's: they are paired in order.

    Raises:
        WeightsMissing: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    published = torch.load(image_weights(), map_location="cpu", weights_only=True)
    model: EfficientNet = tf_efficientnet_lite0(pretrained=False)
    model.load_state_dict(rename_in_order(published, model.state_dict()))
    model.eval()
    return model


def load_minilm() -> MiniLM:
    """Return all-MiniLM-L6-v2 in eval mode.

    Raises:
        TextUnsupported: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    model = MiniLM()
    model.load_state_dict(minilm.from_published(safetensors.torch.load_file(minilm_weights())))
    return model.eval()


def load_use() -> MultilingualUSE:
    """Return the multilingual Universal Sentence Encoder in eval mode.

    Raises:
        TextUnsupported: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    with np.load(use_weights(), allow_pickle=False) as published:
        tensors = use.from_published({name: torch.from_numpy(published[name]) for name in published.files})
    model = MultilingualUSE()
    model.load_state_dict(tensors)
    return model.eval()


def rename_in_order(source: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the n-th tensor of `source` the n-th name of `target`.

    Raises:
        WeightsInvalid: the shapes do not agree one by one.
    """
    if [t.shape for t in source.values()] != [t.shape for t in target.values()]:
        raise WeightsInvalid(f"{len(source)} tensors of the file do not pair with the model's {len(target)} in order")
    return dict(zip(target, source.values(), strict=True))
