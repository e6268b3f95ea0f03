"""PatchNCE: InfoNCE between patches of an image's feature maps; a function, not an objective of encoder training.

Dimension letters: B images, C channels, S sampled places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.objectives.base import require


def patch_nce(
    queries: Sequence[Tensor], keys: Sequence[Tensor], temperature: float = 0.07, across_batch: bool = False
) -> Tensor:
    """PatchNCE (Park, Efros, Zhang and Zhu 2020, CUT, equations 2 and 3).

    In each layer a patch q(s) of the generated image must identify the patch k(s) of the source image at its own place
    s among the patches at other places. Patches are normalized over the channels first:

        L = mean over layers, images and s of -log( exp(q(s) . k(s) / t) / sum over s' of exp(q(s) . k(s') / t) )

    Args:
        queries: for each layer, features (B, C, S) of the generated images; C and S may differ between layers.
        keys: for each layer, features of the source images at the same places, of the same shape. They get no
            gradient, as in the authors' code.
        temperature: t, above 0; 0.07 in the paper.
        across_batch: also take the patches of the batch's other images as negatives.

    Returns:
        A scalar; 0 where a patch has no negatives.

    Raises:
        ConfigInvalid: the temperature is not above 0.
        ValueError: no layers, or shapes that differ.
    """
    require(1e-3 <= temperature <= 100, "temperature", temperature, "in [0.001, 100]")
    if not queries or len(queries) != len(keys):
        raise ValueError(f"PatchNCE compares the same layers, at least one; got {len(queries)} and {len(keys)}")
    layers = [_layer(q, k, temperature, across_batch) for q, k in zip(queries, keys, strict=True)]
    return torch.stack(layers).mean()


def _layer(queries: Tensor, keys: Tensor, temperature: float, across_batch: bool) -> Tensor:
    if queries.shape != keys.shape or queries.ndim != 3 or queries.numel() == 0:
        raise ValueError(
            f"expected two (B, C, S) features of one shape, got {tuple(queries.shape)} and {tuple(keys.shape)}"
        )
    q, k = _unit_rows(queries), _unit_rows(keys.detach())  # (B, S, C)
    if across_batch:
        q, k = q.flatten(0, 1)[None], k.flatten(0, 1)[None]  # one image of B S places
    logits = q @ k.transpose(1, 2) / temperature  # (B, S, S)
    own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    return F.cross_entropy(logits.flatten(0, 1), own.flatten())


def _unit_rows(features: Tensor) -> Tensor:
    return F.normalize(features.transpose(1, 2), dim=2)
