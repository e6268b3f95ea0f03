"""The multilingual Universal Sentence Encoder, version 3: n-gram layers over word pieces, then their mean.

The published weights hold the embeddings as bytes, in 17 interleaved tables; each table has a scale and an offset.

Dimension letters: n texts, t tokens, e = 512 channels of an embedding, c = 256 channels of an n-gram layer.
Reference: Yang et al. 2019, "Multilingual Universal Sentence Encoder for Semantic Retrieval".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TABLES = 17
ROWS_PER_TABLE = 7530
EMBEDDING = 512
CHANNELS = 256
INNER = 320
OUTPUT = 512
NGRAMS = ((2, 0), (3, 1), (5, 2))
"""Length of each n-gram, and how many of its tokens stand before the token that it is about."""
NORM_EPS = 1e-12


class NgramLayer(nn.Module):
    """Two residual layers over windows of `length` tokens; a window that reaches beyond the text sees zeros there."""

    def __init__(self, length: int, before: int) -> None:
        super().__init__()
        self.length, self.before = length, before
        self.first = nn.Linear(length * CHANNELS, CHANNELS)
        self.second = nn.Linear(length * CHANNELS, CHANNELS)

    def forward(self, states: Tensor, kept: Tensor) -> Tensor:
        """States (n, t, c) and a mask (n, t, 1) of 0 and 1 -> (n, t, c)."""
        states = states * kept
        for layer in (self.first, self.second):
            states = (states + F.relu(layer(self._windows(states)))) * kept
        return states

    def _windows(self, states: Tensor) -> Tensor:
        """(n, t, c) -> (n, t, length * c). No shape enters Python, so that tracing keeps t dynamic."""
        last = self.length - 1
        wide = F.pad(states, (0, 0, self.before, last - self.before))
        return torch.cat([wide[:, i : i - last if i < last else None] for i in range(self.length)], dim=-1)


class MultilingualUSE(nn.Module):
    """Token ids -> sentence vectors of unit norm."""

    pieces: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        rows = TABLES * ROWS_PER_TABLE
        self.register_buffer("pieces", torch.zeros(rows, EMBEDDING, dtype=torch.uint8))
        self.register_buffer("scale", torch.ones(TABLES, 1))
        self.register_buffer("offset", torch.zeros(TABLES, 1))
        self.ngrams = nn.ModuleList(NgramLayer(length, before) for length, before in NGRAMS)
        self.enter = nn.Linear(EMBEDDING, len(NGRAMS) * CHANNELS)
        self.enter_norm = nn.LayerNorm(len(NGRAMS) * CHANNELS, eps=NORM_EPS)
        features = EMBEDDING + len(NGRAMS) * CHANNELS
        self.norm = nn.LayerNorm(features, eps=NORM_EPS)
        self.project = nn.Linear(features, OUTPUT)
        self.dense0 = nn.Linear(OUTPUT, INNER, bias=False)
        self.dense1 = nn.Linear(INNER, INNER, bias=False)
        self.dense2 = nn.Linear(INNER, OUTPUT, bias=False)
        self.dense3 = nn.Linear(OUTPUT, OUTPUT, bias=False)
        self.skip1 = nn.Linear(OUTPUT, INNER, bias=False)
        self.skip3 = nn.Linear(INNER, OUTPUT, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids (n, t) int64 and mask (n, t) int64 (1 = a token, 0 = padding) -> (n, 512) float32 of unit norm."""
        kept = mask[:, :, None].to(torch.float32)
        embedded = self.embed(ids)
        entries = self.enter_norm(self.enter(embedded)).split(CHANNELS, dim=-1)
        layers = [layer(entry, kept) for layer, entry in zip(self.ngrams, entries, strict=True)]
        states = torch.cat([embedded, *layers], dim=-1)
        root = kept.sum(1).clamp(min=1.0).sqrt()
        total = (self.norm(states) * kept).sum(1) / root
        pooled = F.linear(total, self.project.weight) + root * self.project.bias  # the sum of each token's projection
        inner = F.relu(self.skip1(pooled) + self.dense1(F.relu(self.dense0(pooled))))
        output = torch.tanh(self.skip3(inner) + self.dense3(F.relu(self.dense2(inner))))
        return F.normalize(output, dim=-1)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (n, t) -> (n, t, e) float32."""
        table = torch.remainder(ids, TABLES)
        values = F.embedding(ids, self.pieces).to(torch.float32)
        return values * F.embedding(table, self.scale) + F.embedding(table, self.offset)


def from_published(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and lay out the published file's arrays for `MultilingualUSE`."""
    tables = torch.stack([arrays[f"q{number + 1}"] for number in range(TABLES)], dim=1)  # (rows, tables, e)
    state = {
        "pieces": tables.reshape(-1, EMBEDDING),
        "scale": arrays["scale"][:, None],
        "offset": arrays["lo"][:, None],
        "norm.weight": arrays["ln_g"],
        "norm.bias": arrays["ln_b"],
        "project.weight": arrays["cnn_W"].T,
        "project.bias": arrays["cnn_b"],
    }
    lengths = [length for length, _ in NGRAMS]
    state["enter.weight"] = torch.cat([arrays[f"proj{length}"].T for length in lengths])
    for ours, theirs in (("enter.bias", "proj_b"), ("enter_norm.weight", "ln_g"), ("enter_norm.bias", "ln_b")):
        state[ours] = torch.cat([arrays[f"{theirs}{length}"] for length in lengths])
    for number, length in enumerate(lengths):
        for ours, theirs in (("first", "1"), ("second", "2")):
            state[f"ngrams.{number}.{ours}.weight"] = arrays[f"w{theirs}_{length}"].T
            state[f"ngrams.{number}.{ours}.bias"] = arrays[f"b{theirs}_{length}"]
    dense = {"dense0": "d0", "dense1": "d1", "dense2": "d2", "dense3": "d3", "skip1": "p1", "skip3": "p3"}
    state |= {f"{ours}.weight": arrays[theirs].T for ours, theirs in dense.items()}
    return {name: tensor.contiguous() for name, tensor in state.items()}
