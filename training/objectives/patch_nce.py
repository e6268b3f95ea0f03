"""PatchNCE: InfoNCE between patches of an image's feature maps; a loss by itself, which no encoder is trained with.

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

    In each layer a patch q(s) of the made image asks for the patch k(s) of the given image at its own place s,
    among the patches at the other places; columns are brought to unit norm over the channels first:

        L = mean over layers, images and s of -log( exp(q(s) . k(s) / t) / sum over s' of exp(q(s) . k(s') / t) )

    Args:
        queries: for each layer, features (B, C, S) of the made images; C and S may differ between layers.
        keys: for each layer, features of the given images at the same places, of the same shape. No gradient goes
            into them, as in the authors' code.
        temperature: t, above 0; the paper's 0.07.
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
    asked, given = _unit_rows(queries), _unit_rows(keys.detach())  # (B, S, C)
    if across_batch:
        asked, given = asked.flatten(0, 1)[None], given.flatten(0, 1)[None]  # one image of B S places
    logits = asked @ given.transpose(1, 2) / temperature  # (B, S, S)
    own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    return F.cross_entropy(logits.flatten(0, 1), own.flatten())


def _unit_rows(features: Tensor) -> Tensor:
    return F.normalize(features.transpose(1, 2), dim=2)
