"""Packs texts of different lengths into one sequence: a causal tower then computes no padding, and a shared start once.

A causal tower's first state depends on the first token alone, which is the same start token in every text: it is
computed once, and all texts attend to it. The remaining tokens up to each text's end are concatenated, and a mask
separates the texts. Dimension letters: n texts, t tokens of the longest, p tokens in the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_STEP = 4
"""Sequences are as long as a multiple of this: the first sequence of each length costs an engine some milliseconds."""


@dataclass(frozen=True)
class Packed:
    """The layout of a packed sequence.

    Attributes:
        places: (p,) int64, each token's place in the flattened ids (n * t).
        columns: (p,) int64, each token's place in its text.
        mask: (p, p) additive, -inf where a token must not attend to another.
        ends: (n,) int64, where in the sequence each text's end token is.
    """

    places: Tensor
    columns: Tensor
    mask: Tensor
    ends: Tensor


def pack(ids: Tensor, ends: Tensor, mask: Tensor) -> Packed:
    """Ids (n, t) int64, their end tokens' columns (n,), a causal additive mask (t, t) -> one sequence.

    Texts that don't begin as the first one does keep a first token of their own.
    """
    n, t = ids.shape
    rows, columns = torch.arange(n, device=ids.device)[:, None], torch.arange(t, device=ids.device)[None]
    shared = ids[:, :1] == ids[:1, :1]  # (n, 1)
    again = shared & (rows > 0) & (columns == 0)
    kept = ((columns <= ends[:, None]) & ~again).flatten()
    found = kept.nonzero()[:, 0]
    places = F.pad(found, (0, -found.shape[0] % _STEP))  # with the first token again, to which no other attends
    row, column = places // t, places % t
    real = torch.arange(places.shape[0], device=ids.device) < found.shape[0]
    same = row[:, None] == row
    start = shared[row] & (places == 0)  # (p, p): positions that attend to the shared token
    seen = torch.where((same | start) & real, mask[column[:, None], column], float("-inf"))
    last = kept.long().cumsum(0)[rows[:, 0] * t + ends] - 1
    return Packed(places, column, seen, torch.where(shared[:, 0] & (ends == 0), 0, last))
