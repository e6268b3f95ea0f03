"""Texts -> token ids for the text tower of an open_clip model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.encoders.dual_encoder import pad_tokens
from lookalike.types import Int64

_MAX_TOKENS_PER_BYTE = 2
"""Tokenizers change the case of characters, which may lengthen them."""


def load_tokenizer(model: str) -> Any:
    """Return open_clip's own tokenizer of a model."""
    import open_clip

    return open_clip.get_tokenizer(model)


class OpenClipTokens:
    """Texts -> (ids,), cut after the longest text's end token where the tower allows it."""

    def __init__(self, tokenizer: Callable[[], Any], context: int, end: str | None, end_id: int) -> None:
        """Take what loads the tokenizer, the number of tokens that the tower takes, and the end token as in `trim`."""
        self.max_tokens = context
        self._load = tokenizer
        self._end = end
        self._end_id = end_id

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Texts -> ((n, t) int64,)."""
        ids = np.asarray(self._tokenizer(list(texts)).numpy(), np.int64)
        return (trim(ids, self._end, self._end_id),)

    def truncated_tokens(self, text: str) -> int:
        """Return the number of tokens that are left out: those of the whole text, less those that are kept."""
        whole = self._ids(text, _MAX_TOKENS_PER_BYTE * len(text.encode()) + self.max_tokens)
        padding = whole[-1]
        return max(0, _count(whole, padding) - _count(self._ids(text), padding))

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text that are kept, special ones included."""
        rows: Int64 = np.asarray(self._tokenizer([*texts, ""]).numpy(), np.int64)
        padding = rows[-1, -1]  # at the end of the empty text
        return [_count(row, padding) for row in rows[:-1]]

    def _ids(self, text: str, context: int | None = None) -> Int64:
        """Return the ids of a text, (context,) padded; of the tower's own context by default."""
        ids: Int64 = np.asarray(self._tokenizer([text], context).numpy(), np.int64)[0]
        return ids

    @cached_property
    def _tokenizer(self) -> Any:
        return self._load()


def _count(ids: Int64, padding: int) -> int:
    """Return the length of ids (t,) without the padding at their end."""
    return int(np.max(np.flatnonzero(ids != padding), initial=-1)) + 1


def trim(ids: Int64, end: str | None, end_id: int) -> Int64:
    """Cut ids (n, t) after the last row's end token, to a multiple of four; what follows can't change the result.

    Args:
        ids: as open_clip's tokenizer pads them.
        end: `argmax`: the end token has the greatest id of its row; `eos`: it is `end_id`; None: nothing is cut.
        end_id: see `end`.
    """
    if end is None:
        return ids
    marks = ids if end == "argmax" else ids == end_id
    return pad_tokens(ids[:, : int(marks.argmax(axis=1).max()) + 1], ids.shape[1])
