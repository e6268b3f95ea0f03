"""Files -> towers in eval mode. The only place where heads are read from disk."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from lookalike.encoders.lite.backbones import load_efficientnet, load_minilm, tokenizer_path
from lookalike.encoders.lite.heads import ImageHead, TextHead
from lookalike.encoders.lite.tokenizer import Tokenize, Tokenizer
from lookalike.encoders.lite.towers import LiteBackbone, LiteImageTower, LiteTextTower
from lookalike.errors import WeightsInvalid


def build_image_tower(heads: Path) -> LiteImageTower:
    """See `load_image_tower`; the file must exist."""
    head = ImageHead()
    _load(head, read_heads(heads), "image.", heads)
    return LiteImageTower(LiteBackbone(load_efficientnet()), head).eval()


def build_text_tower(heads: Path) -> tuple[LiteTextTower, Tokenize]:
    """See `load_text_tower`; the file must exist."""
    head = TextHead()
    _load(head, read_heads(heads), "text.", heads)
    tokenizer = Tokenizer(tokenizer_path())
    return LiteTextTower(load_minilm(), head).eval(), tokenizer


def read_heads(path: Path) -> dict[str, Tensor]:
    """The tensors of a heads' file as float32, by name.

    Raises:
        WeightsInvalid: not a safetensors file.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise WeightsInvalid(f"{path} is not a safetensors file: {error}") from error
    return {name: tensor.float() for name, tensor in tensors.items()}


def _load(head: ImageHead | TextHead, tensors: dict[str, Tensor], prefix: str, path: Path) -> None:
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        head.load_state_dict(own)
    except RuntimeError as error:  # what torch raises for missing, unknown or misshapen tensors
        raise WeightsInvalid(f"{path} does not fit lite's heads: {error}") from error
