"""The model family `lite`: how encoders that were trained from `lite` are built and run. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from lookalike.encoders.architecture import Architecture, ModelFamily, TextInput, Towers
from lookalike.encoders.engines.cache import source_digest
from lookalike.encoders.lite import weights
from lookalike.encoders.lite.tokenizer import LiteTokens
from lookalike.encoders.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

IMAGE_BATCHES = (1, 4)
"""Row counts of the image tower's graph: of a small convolutional network four images fill a core's cache."""

_EXAMPLE_TOKENS = 8


class LiteFamily(ModelFamily):
    """EfficientNet-Lite0 for images; MiniLM and the multilingual USE for texts."""

    cuda_precision = "fp16"
    image_batches = IMAGE_BATCHES
    fp32_layers = (6, 12)
    """Training on small images leaves less to average rounding over than the released `lite` has. With three and eight
    an image of a triplet encoder at 64 pixels strayed to cosine 0.981 in bf16, now 0.997."""

    text_hint = weights.TEXT_HINT
    first_format = 2  # format 1 has the joint space of the first edition

    @property
    @override
    def round_to_bf16(self) -> Callable[[nn.Module], None]:
        return _round_to_bf16

    @override
    def text_available(self) -> bool:
        return weights.text_available()

    @override
    def build_towers(self, architecture: Architecture, preprocessing: Preprocessing) -> Towers:
        from lookalike.encoders.lite.towers import build_towers

        return build_towers(architecture)

    @override
    def text_input(self, model: str, *, context: int, end: str | None, end_id: int) -> TextInput:
        ones = np.ones((2, _EXAMPLE_TOKENS), np.int64)
        return TextInput(example=(ones, ones, ones, ones), tokenize=LiteTokens())

    @override
    def code_digest(self) -> str:
        return source_digest(Path(__file__).parent)


def _round_to_bf16(tower: nn.Module) -> None:
    """Round the weights of an image tower's convolutions in place; see `rounding`."""
    from lookalike.encoders.lite import rounding

    rounding.round_to_bf16(tower)
