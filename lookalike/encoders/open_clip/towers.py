"""An open_clip model's two towers as modules: pixels or token ids in, a joint space out.

A causal text tower reads only tokens up to the end token, so it runs on trimmed ids, and with an `InferenceTransformer`
on packed ones; other text towers get the full context. Dimension letters: n rows, t tokens,
d joint width.
"""

from __future__ import annotations

import warnings
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from typing_extensions import override

from lookalike.encoders.architecture import Architecture, Towers
from lookalike.encoders.open_clip.inference import InferenceTransformer
from lookalike.encoders.open_clip.packing import pack
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.encoders.projected import Projected

_END_POOLS = ("argmax", "eos")


class ImageTower(nn.Module):
    """(n, 3, S, S) uint8 RGB -> (n, d) float32, not normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self, visual: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.visual = visual
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        features = self.visual((pixels.float() / 255.0 - self.mean) / self.std)
        return first(features)


class CausalTextTower(nn.Module):
    """Ids (n, t) int64, t no more than the context -> (n, d) float32, not normalised.

    The parts are the model's own; only position table and causal mask are cut to t.
    """

    def __init__(self, parts: Any, pool: str, end: int) -> None:
        super().__init__()
        self.parts = parts
        self.pool = pool
        self.end = end

    @override
    def forward(self, ids: Tensor) -> Tensor:
        parts = self.parts
        t = ids.shape[1]
        mask = parts.attn_mask[:t, :t]
        ends = (ids if self.pool == "argmax" else (ids == self.end).int()).argmax(dim=-1)
        if isinstance(parts.transformer, InferenceTransformer):
            packed = pack(ids, ends, mask)
            x = parts.token_embedding(ids.flatten()[packed.places]) + parts.positional_embedding[packed.columns]
            x = parts.transformer.at(packed.ends, x[None], packed.mask)[0]  # (n, c): states of the end tokens
        else:
            x = parts.token_embedding(ids) + parts.positional_embedding[:t]  # (n, t, c)
            x = parts.transformer(x, attn_mask=mask)[torch.arange(ids.shape[0], device=ids.device), ends]
        return project(parts.ln_final(x), parts.text_projection)


class WholeTextTower(nn.Module):
    """Ids (n, context) int64 -> (n, d) float32, by the model's own `encode_text`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @override
    def forward(self, ids: Tensor) -> Tensor:
        return first(self.model.encode_text(ids, normalize=False))


def text_tower(model: Any) -> nn.Module:
    """Return the tower that gives the output of `model.encode_text` with the least work."""
    pool = end_pool(model)
    if pool is None:
        return WholeTextTower(model)
    return CausalTextTower(_text_parts(model), pool, end_id(model))


def end_pool(model: Any) -> str | None:
    """Return how a causal tower finds its end token, `argmax` or `eos`; None for a tower that must not be trimmed."""
    parts = _text_parts(model)
    pool = getattr(parts, "text_pool_type", None) or getattr(parts, "pool_type", None)
    causal = getattr(parts, "attn_mask", None) is not None and getattr(parts, "cls_emb", None) is None
    absolute = isinstance(getattr(parts, "positional_embedding", None), nn.Parameter)
    return pool if causal and absolute and pool in _END_POOLS else None


def end_id(model: Any) -> int:
    """Return the end token's id, which pooling by `eos` needs."""
    parts = _text_parts(model)
    return int(getattr(parts, "text_eos_id", getattr(parts, "eos_id", 0)))


def project(x: Tensor, projection: Any) -> Tensor:
    """Apply a text projection, be it a matrix, a linear layer or none."""
    if projection is None:
        return x
    projected: Tensor = projection(x) if isinstance(projection, nn.Module) else x @ projection
    return projected


def first(output: Any) -> Tensor:
    """Return the pooled vector, the first output of towers that return tokens as well."""
    tensor: Tensor = output[0] if isinstance(output, tuple | list) else output
    return tensor


def _text_parts(model: Any) -> Any:
    """CLIP holds the text tower's parts itself; CustomTextCLIP and CoCa hold a tower."""
    return getattr(model, "text", model)


def build_towers(architecture: Architecture, preprocessing: Preprocessing) -> Towers:
    """Return the modules of an architecture of this family, weights random."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no pretrained weights": they come from our own file
        model = open_clip.create_model(architecture.model, force_quick_gelu=architecture.quick_gelu)
    image: nn.Module = ImageTower(model.visual, preprocessing.mean, preprocessing.std)
    if architecture.head:
        width = open_clip.get_model_config(architecture.model)["embed_dim"]
        return Towers(Projected(image, width, architecture.head), None, model)
    return Towers(image, text_tower(model) if architecture.text else None, model)
