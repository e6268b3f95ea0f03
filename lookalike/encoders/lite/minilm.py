"""The sentence encoder all-MiniLM-L6-v2 as six plain transformer layers.

Dimension letters: n texts, t tokens, c = 384 channels.
Reference: Devlin et al. 2019 (BERT), Wang et al. 2020 (MiniLM), Reimers & Gurevych 2019 (mean pooling).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY = 30522
POSITIONS = 512
CHANNELS = 384
HEADS = 12
INNER = 1536
LAYERS = 6
NORM_EPS = 1e-12


class BertLayer(nn.Module):
    """Self-attention and feed-forward, each followed by residual sum and layer norm (post-norm, as in BERT)."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(CHANNELS, CHANNELS)
        self.key = nn.Linear(CHANNELS, CHANNELS)
        self.value = nn.Linear(CHANNELS, CHANNELS)
        self.attended = nn.Linear(CHANNELS, CHANNELS)
        self.attended_norm = nn.LayerNorm(CHANNELS, eps=NORM_EPS)
        self.expand = nn.Linear(CHANNELS, INNER)
        self.contract = nn.Linear(INNER, CHANNELS)
        self.contract_norm = nn.LayerNorm(CHANNELS, eps=NORM_EPS)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """(n, t, c) hidden states and (n, 1, 1, t) additive mask (0 or very negative) -> (n, t, c)."""
        heads = [_split(linear(hidden)) for linear in (self.query, self.key, self.value)]
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=bias)  # (n, heads, t, c / heads)
        hidden = self.attended_norm(hidden + self.attended(mixed.transpose(1, 2).flatten(2)))
        output: Tensor = self.contract_norm(hidden + self.contract(F.gelu(self.expand(hidden))))
        return output


class MiniLM(nn.Module):
    """Token ids -> token states."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, CHANNELS)
        self.positions = nn.Embedding(POSITIONS, CHANNELS)
        self.segments = nn.Embedding(2, CHANNELS)
        self.norm = nn.LayerNorm(CHANNELS, eps=NORM_EPS)
        self.layers = nn.ModuleList(BertLayer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids (n, t) int64 and mask (n, t) int64 (1 = a token, 0 = padding) -> (n, t, c) states of the last layer."""
        hidden = self.embed(ids)
        bias = attention_bias(mask)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        return hidden

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (n, t) -> (n, t, c): word, position and the first segment, normalised."""
        # cumsum instead of arange(t): no shape enters Python, so tracing keeps t dynamic.
        places = torch.ones_like(ids).cumsum(1) - 1
        states: Tensor = self.norm(self.words(ids) + self.positions(places) + self.segments.weight[0])
        return states


def attention_bias(mask: Tensor) -> Tensor:
    """(n, t) of 0 and 1 -> (n, 1, 1, t) float32 of -1e4 and 0; finite, so that bf16 engines stay without NaN."""
    return (mask[:, None, None, :].to(torch.float32) - 1.0) * 1e4


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that the mask keeps: (n, t, c), (n, t) -> (n, c)."""
    kept = mask[:, :, None].to(states.dtype)
    return (states * kept).sum(1) / kept.sum(1).clamp(min=1.0)


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the published file's tensors to this module's names; pooler and position-id buffer are left out."""
    renamed = {}
    for name, tensor in tensors.items():
        new = _rename(name)
        if new is not None:
            renamed[new] = tensor
    return renamed


_PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attended_norm",
    "intermediate.dense": "expand",
    "output.dense": "contract",
    "output.LayerNorm": "contract_norm",
}
_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "words.weight",
    "embeddings.position_embeddings.weight": "positions.weight",
    "embeddings.token_type_embeddings.weight": "segments.weight",
    "embeddings.LayerNorm.weight": "norm.weight",
    "embeddings.LayerNorm.bias": "norm.bias",
}


def _rename(name: str) -> str | None:
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    if not name.startswith("encoder.layer."):
        return None
    _, _, number, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"layers.{number}.{_PARTS[part]}.{kind}"


def _split(x: Tensor) -> Tensor:
    """(n, t, c) -> (n, heads, t, c / heads)."""
    return torch.unflatten(x, -1, (HEADS, CHANNELS // HEADS)).transpose(1, 2)
