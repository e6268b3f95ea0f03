"""Texts -> token ids for the text tower of `lite`, with the published tokenizers of both sentence encoders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.encoders.dual_encoder import pad_tokens
from lookalike.encoders.lite.weights import TEXT_HINT, minilm_tokenizer, use_tokenizer
from lookalike.errors import TextUnsupported
from lookalike.types import Int64

MAX_TOKENS = 128
"""Longer texts are cut here, as MiniLM's authors trained it."""


class MiniLMTokenizer:
    """Texts -> ids and mask, padded to the longest of them.

    Raises:
        TextUnsupported: a package is not installed.
        WeightsInvalid: its file is not the published one.
    """

    def __init__(self) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise TextUnsupported(f"text needs the package tokenizers: {TEXT_HINT}") from error
        self._tokenizer = tokenizers.Tokenizer.from_file(str(minilm_tokenizer()))
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

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, at most 128, special ones included."""
        return [sum(encoding.attention_mask) for encoding in self._tokenizer.encode_batch(list(texts))]


class USETokenizer:
    """Texts -> ids and mask, padded to the longest of them; a text that is cut keeps its end token.

    Raises:
        TextUnsupported: a package is not installed.
        WeightsInvalid: its file is not the published one.
    """

    def __init__(self) -> None:
        try:
            import sentencepiece
        except ImportError as error:
            raise TextUnsupported(f"text needs the package sentencepiece: {TEXT_HINT}") from error
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(use_tokenizer()), add_bos=True, add_eos=True)

    def __call__(self, texts: Sequence[str]) -> tuple[Int64, Int64]:
        """Texts, n >= 1 of them, -> ids (n, t) int64 and mask (n, t) int64 (1 = token), t <= 128."""
        rows = [_cut(self._pieces.encode(text)) for text in texts]  # a list would start threads, for nothing
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate(rows)
        return ids, mask.astype(np.int64)

    def truncated_tokens(self, text: str) -> int:
        """Return the number of tokens beyond the first 128, special ones included."""
        return max(0, len(self._pieces.encode(text)) - MAX_TOKENS)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, at most 128, special ones included."""
        return [min(MAX_TOKENS, len(self._pieces.encode(text))) for text in texts]


class LiteTokens:
    """Texts -> ids and masks of both, padded to a multiple of four tokens; reads the files at the first call."""

    max_tokens = MAX_TOKENS

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Texts -> MiniLM's ids and mask, (n, t) int64 each, and the USE's, (n, u) int64 each."""
        arrays = (*self._minilm(texts), *self._use(texts))
        return tuple(pad_tokens(array, MAX_TOKENS) for array in arrays)

    def truncated_tokens(self, text: str) -> int:
        """Return the number of tokens that are left out: the larger of both tokenizers' numbers."""
        return max(self._minilm.truncated_tokens(text), self._use.truncated_tokens(text))

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens that are read: the larger of both tokenizers' numbers."""
        return [*map(max, self._minilm.token_counts(texts), self._use.token_counts(texts))]

    @cached_property
    def _minilm(self) -> MiniLMTokenizer:
        return MiniLMTokenizer()

    @cached_property
    def _use(self) -> USETokenizer:
        return USETokenizer()


def _cut(row: list[int]) -> list[int]:
    return row if len(row) <= MAX_TOKENS else [*row[: MAX_TOKENS - 1], row[-1]]
