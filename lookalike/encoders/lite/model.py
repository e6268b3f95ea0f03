"""The model behind the encoder `lite`: torch modules and the loading of their weights.

Three files make it: two published backbones from their packages, and `assets/lite.safetensors`, the heads that
`lookalike train configs/lite.toml` made. It knows nothing of engines, devices or batches. Importing it imports no
torch; loading a tower does.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.encoders.lite.facts import (
    HEAD_FILE,
    IMAGE_SHA256,
    LITE_DIM,
    LITE_PREPROCESSING,
    TEXT_FILE,
    TEXT_PACKAGE,
    TEXT_SHA256,
    TOKENIZER_SHA256,
    package_file,
)
from lookalike.errors import WeightsMissing

if TYPE_CHECKING:
    from torch import nn

    from lookalike.encoders.lite.tokenizer import Tokenize
    from lookalike.encoders.lite.towers import LiteImageTower, LiteTextTower

__all__ = [
    "HEAD_FILE",
    "LITE_DIM",
    "LITE_PREPROCESSING",
    "load_image_tower",
    "load_text_tower",
    "round_to_bf16",
    "text_available",
    "weights_digest",
]


def load_image_tower(heads: Path = HEAD_FILE) -> LiteImageTower:
    """The image tower in eval mode, float32, on the CPU; needs no text package.

    Args:
        heads: a file that `lookalike train` made.

    Raises:
        WeightsMissing: the backbone's package or the heads' file is not there.
        WeightsInvalid: one of the files is not what it should be.
    """
    from lookalike.encoders.lite.loading import build_image_tower

    return build_image_tower(existing(heads))


def load_text_tower(heads: Path = HEAD_FILE) -> tuple[LiteTextTower, Tokenize]:
    """The text tower in eval mode, float32, on the CPU, and what makes its ids and mask from texts.

    Raises:
        TextUnsupported: a text package is not installed.
        WeightsMissing: the heads' file is not there.
        WeightsInvalid: one of the files is not what it should be.
    """
    from lookalike.encoders.lite.loading import build_text_tower

    return build_text_tower(existing(heads))


def round_to_bf16(tower: nn.Module) -> None:
    """Rounds the weights of an image tower's convolutions in place, for an engine that computes in bf16."""
    from lookalike.encoders.lite import rounding

    rounding.round_to_bf16(tower)


def text_available() -> bool:
    """Whether both text packages are installed; reads nothing."""
    return find_spec("tokenizers") is not None and package_file(TEXT_PACKAGE, TEXT_FILE) is not None


def weights_digest(heads: Path = HEAD_FILE) -> str:
    """SHA-256, hex, over the backbones' pinned digests and the heads' bytes; needs no text package.

    Raises:
        WeightsMissing: the heads' file is not there.
    """
    digest = hashlib.sha256("".join((IMAGE_SHA256, TEXT_SHA256, TOKENIZER_SHA256)).encode())
    digest.update(existing(heads).read_bytes())
    return digest.hexdigest()


def existing(path: Path) -> Path:
    """The path itself.

    Raises:
        WeightsMissing: no file there.
    """
    if not path.is_file():
        raise WeightsMissing(f"no heads at {path}: reinstall lookalike, or run `lookalike train configs/lite.toml`")
    return path
