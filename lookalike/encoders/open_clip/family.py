"""The model family `open_clip`: how open_clip's networks, trained here or not, are built and run. Imports no torch."""

from __future__ import annotations

import hashlib
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from lookalike.encoders.architecture import Architecture, ModelFamily, TextInput, Towers
from lookalike.encoders.engines.cache import source_digest
from lookalike.encoders.open_clip.tokenizer import OpenClipTokens, load_tokenizer
from lookalike.encoders.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

_EXAMPLE_TOKENS = 8

_MAX_PACKED_TOKENS = 192
"""Longer packed sequences take as long a token, and attention grows with their square."""


class OpenClipFamily(ModelFamily):
    """open_clip's dual encoders."""

    @override
    def build_towers(self, architecture: Architecture, preprocessing: Preprocessing) -> Towers:
        from lookalike.encoders.open_clip.towers import build_towers

        return build_towers(architecture, preprocessing)

    @override
    def optimize_for_inference(self, tower: nn.Module) -> nn.Module:
        from lookalike.encoders.open_clip.inference import optimize_for_inference

        return optimize_for_inference(tower)

    @override
    def text_input(self, model: str, *, context: int, end: str | None, end_id: int) -> TextInput:
        tokens = context if end is None else min(_EXAMPLE_TOKENS, context)
        return TextInput(
            example=(np.ones((2, tokens), np.int64),),
            tokenize=OpenClipTokens(partial(load_tokenizer, model), context, end, end_id),
            max_packed_tokens=0 if end is None else _MAX_PACKED_TOKENS,
        )

    @override
    def code_digest(self) -> str:
        parts = version("open_clip_torch"), version("timm"), source_digest(Path(__file__).parent)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()
