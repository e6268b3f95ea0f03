"""Texts -> token ids for the text tower of `lite`, with the published tokenizer file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.encoders.dual_encoder import pad_tokens
from lookalike.encoders.lite.weights import TEXT_HINT, tokenizer_file
from lookalike.errors import TextUnsupported
from lookalike.types import Int64

MAX_TOKENS = 128
"""Longer texts are cut here, as the model's authors trained it."""


class Tokenizer:
    """Texts -> ids and mask, padded to the longest of them.

    Raises:
        TextUnsupported: the package `tokenizers` is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise TextUnsupported(f"text needs the package tokenizers: {TEXT_HINT}") from error
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()

    def __call__(self, texts: Sequence[str]) -> tuple[Int64, Int64]:
        """Texts, n >= 1 of them, -> ids (n, t) int64 and mask (n, t) int64 (1 = token), t <= 128."""
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        return ids, mask

    def truncated_tokens(self, text: str) -> int:
        """Return the number of tokens beyond the first 128, special ones included."""
        rest = self._tokenizer.encode(text).overflowing
        return sum(encoding.special_tokens_mask.count(0) for encoding in rest)


class LiteTokens:
    """Texts -> ids and mask, padded to a multiple of four tokens; reads the tokenizer's file at the first call."""

    max_tokens = MAX_TOKENS

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Texts -> ids and mask, (n, t) int64 each."""
        return tuple(pad_tokens(array, MAX_TOKENS) for array in self._tokenizer(texts))

    def truncated_tokens(self, text: str) -> int:
        """Return the number of tokens that are left out."""
        return self._tokenizer.truncated_tokens(text)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(tokenizer_file())
