"""Texts -> token ids for the text tower, with the published tokenizer file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lookalike.errors import TextUnsupported
from lookalike.types import Int64

MAX_TOKENS = 128
"""Longer texts are cut here, as the model's authors trained it."""

Tokenize = Callable[[Sequence[str]], tuple[Int64, Int64]]


class Tokenizer:
    """Called with texts, gives ids and mask padded to the longest of them.

    Raises:
        TextUnsupported: the package `tokenizers` is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise TextUnsupported("text needs the package tokenizers: pip install 'lookalike[text]'") from error
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()

    def __call__(self, texts: Sequence[str]) -> tuple[Int64, Int64]:
        """Texts, n >= 1 of them, -> ids (n, t) int64 and mask (n, t) int64 (1 = token), t <= 128."""
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        return ids, mask
