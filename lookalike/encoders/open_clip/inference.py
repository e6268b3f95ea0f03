"""open_clip's transformers without the work that does not affect the embedding; for serving, never for training.

Only one token's state of the last block is used, CLS or the end token, so that only this one is computed.
`nn.MultiheadAttention`, traced, moves every array about eight times a block; three projections and attention as the
engines know it move each once. The same vectors in up to a fifth (texts) and a twelfth (images) less time
(benchmarks/history/encoders.md). Dimension letters: n rows, t tokens, c channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def optimize_for_inference(tower: nn.Module) -> nn.Module:
    """Replace the plain transformers of a tower in place, and return it; other modules stay as they are.

    Weights are shared or moved: the model that the tower was cut from must not be used for anything else.
    """
    from open_clip.transformer import Transformer, VisionTransformer

    modules: list[Any] = list(tower.modules())
    for module in modules:
        transformer: Any = getattr(module, "transformer", None)
        if type(transformer) is Transformer and all(map(_is_plain, transformer.resblocks)):
            visual = type(module) is VisionTransformer
            reads_first = visual and module.attn_pool is None and module.pool_type == "tok"
            module.transformer = InferenceTransformer(transformer, only_first=reads_first)
    return tower


class InferenceTransformer(nn.Module):
    """A stack of residual attention blocks (pre-norm, as in Radford et al. 2021)."""

    def __init__(self, transformer: Any, *, only_first: bool) -> None:
        """`only_first`: only the first token of the output is used."""
        super().__init__()
        self.blocks = nn.ModuleList(_InferenceBlock(block) for block in transformer.resblocks)
        self.only_first = only_first
        self.heads = transformer.resblocks[0].attn.num_heads

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """(n, t, c) and an additive mask -> (n, t, c), or (n, 1, c) where only the first token is read.

        The mask is (t, t), or (n * heads, t, t) as CoCa has it.
        """
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = torch.unflatten(attn_mask, 0, (-1, self.heads))
        x = self._before_last(x, attn_mask)
        query_states, mask = (x[:, :1], None) if self.only_first else (x, attn_mask)
        states: Tensor = self.blocks[-1](x, query_states, mask)
        return states

    def get_cast_dtype(self) -> torch.dtype:
        """Return the weights' dtype, which open_clip's towers need."""
        return next(self.parameters()).dtype

    def at(self, ends: Tensor, x: Tensor, attn_mask: Tensor) -> Tensor:
        """Return the output at some tokens alone, the same in each row: ends (e,) int64 -> (n, e, c)."""
        x = self._before_last(x, attn_mask)
        state: Tensor = self.blocks[-1](x, x[:, ends], attn_mask[ends])
        return state

    def _before_last(self, x: Tensor, attn_mask: Tensor | None) -> Tensor:
        for block in list(self.blocks)[:-1]:
            x = block(x, x, attn_mask)
        return x


class _InferenceBlock(nn.Module):
    """Norms, MLP and layer scales are the model's own."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.ln_1, self.ls_1, self.ln_2, self.mlp, self.ls_2 = block.ln_1, block.ls_1, block.ln_2, block.mlp, block.ls_2
        self.heads = block.attn.num_heads
        weights = block.attn.in_proj_weight.detach().chunk(3)
        biases = block.attn.in_proj_bias.detach().chunk(3)
        scale = float(block.attn.head_dim) ** -0.5  # of the logits; a power of two for heads of 64
        self.query = _linear(weights[0] * scale, biases[0] * scale)
        self.key, self.value = (_linear(*pair) for pair in zip(weights[1:], biases[1:], strict=True))
        self.out = block.attn.out_proj

    def forward(self, x: Tensor, query_states: Tensor, mask: Tensor | None) -> Tensor:
        """States x (n, t, c), and of the output tokens (n, q, c) -> (n, q, c)."""
        keys = self.ln_1(x)
        queries = keys if query_states is x else self.ln_1(query_states)
        query, key, value = self._split(self.query(queries)), self._split(self.key(keys)), self._split(self.value(keys))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
        query_states = query_states + self.ls_1(self.out(mixed.transpose(1, 2).flatten(2)))
        states: Tensor = query_states + self.ls_2(self.mlp(self.ln_2(query_states)))
        return states

    def _split(self, x: Tensor) -> Tensor:
        """(n, t, c) -> (n, heads, t, c / heads)."""
        return torch.unflatten(x, -1, (self.heads, x.shape[-1] // self.heads)).transpose(1, 2)


def _is_plain(block: Any) -> bool:
    from open_clip.transformer import ResidualAttentionBlock

    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    attention = block.attn
    plain = type(attention) is nn.MultiheadAttention and attention.in_proj_weight is not None
    return plain and attention.in_proj_bias is not None and attention.bias_k is None and not attention.add_zero_attn


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias.contiguous())
    return linear.eval()
