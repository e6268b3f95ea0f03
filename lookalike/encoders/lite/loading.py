"""Weights -> the towers of `lite`, in eval mode, float32, on the CPU."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from lookalike.encoders.lite.heads import ImageHead, TextHead
from lookalike.encoders.lite.pretrained import load_efficientnet, load_minilm, load_use
from lookalike.encoders.lite.towers import LiteBackbone, LiteImageTower, LiteTextBackbone, LiteTextTower
from lookalike.encoders.lite.weights import HEAD_FILE, require_heads
from lookalike.errors import WeightsInvalid


def load_image_tower(heads: Path = HEAD_FILE) -> LiteImageTower:
    """Return the image tower; needs no text package.

    Args:
        heads: a file that `lookalike train` made.

    Raises:
        WeightsMissing: the backbone's package or the heads' file is missing.
        WeightsInvalid: a file is not the published one, or does not fit.
    """
    head = ImageHead()
    _fill(head, read_heads(heads), "image.", heads)
    return LiteImageTower(LiteBackbone(load_efficientnet()), head).eval()


def load_text_tower(heads: Path = HEAD_FILE) -> LiteTextTower:
    """Return the text tower; `lookalike.encoders.lite.tokenizer.LiteTokens` makes its inputs.

    Raises:
        TextUnsupported: a text package is not installed.
        WeightsMissing: the heads' file is missing.
        WeightsInvalid: a file is not the published one, or does not fit.
    """
    head = TextHead()
    _fill(head, read_heads(heads), "text.", heads)
    return LiteTextTower(LiteTextBackbone(load_minilm(), load_use()), head).eval()


def read_heads(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a heads' file as float32, by name.

    Raises:
        WeightsMissing: the file does not exist.
        WeightsInvalid: not a safetensors file.
    """
    try:
        tensors = safetensors.torch.load_file(require_heads(path))
    except safetensors.SafetensorError as error:
        raise WeightsInvalid(f"{path} is not a safetensors file: {error}") from error
    return {name: tensor.float() for name, tensor in tensors.items()}


def _fill(head: ImageHead | TextHead, tensors: dict[str, Tensor], prefix: str, path: Path) -> None:
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        head.load_state_dict(own)
    except RuntimeError as error:  # what torch raises for missing, unknown or misshapen tensors
        raise WeightsInvalid(f"{path} does not fit lite's heads: {error}") from error
