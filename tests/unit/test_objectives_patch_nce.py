"""PatchNCE: equal to a naive loop in float64; edge cases; learning."""

from __future__ import annotations

import pytest
import torch

from lookalike.errors import ConfigInvalid
from tests import naive_losses
from training.objectives.patch_nce import patch_nce


def features(*shapes, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("across_batch", [False, True])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_naive_loop_over_layers(temperature, across_batch):
    shapes = [(2, 5, 4), (2, 3, 6)]
    queries, keys = features(*shapes), features(*shapes, seed=1)
    expected = naive_losses.patch_nce(queries, keys, temperature, across_batch)
    assert patch_nce(queries, keys, temperature, across_batch).item() == pytest.approx(expected, abs=1e-12)


def test_loss_is_0_without_negatives():
    query, key = features((3, 4, 1), (3, 4, 1))
    query.requires_grad_()
    loss = patch_nce([query], [key])
    loss.backward()
    assert loss.item() == 0
    assert query.grad.abs().max() == 0
    assert patch_nce([query], [key], across_batch=True).item() > 0


def test_blank_features_have_finite_gradients():
    query = torch.zeros(1, 4, 5, requires_grad=True)
    patch_nce([query], [torch.zeros(1, 4, 5)]).backward()
    assert torch.isfinite(query.grad).all()


def test_learns_places_and_gives_keys_no_gradient():
    query, key = features((2, 8, 6), (2, 8, 6))
    query.requires_grad_()
    key.requires_grad_()
    optimizer, losses = torch.optim.Adam([query], lr=0.1), []
    for _ in range(40):
        optimizer.zero_grad()
        loss = patch_nce([query], [key])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
    assert key.grad is None


def test_incompatible_features_are_rejected():
    query, key = features((2, 8, 6), (2, 8, 5))
    with pytest.raises(ValueError, match="of one shape"):
        patch_nce([query], [key])
    with pytest.raises(ValueError, match="the same layers"):
        patch_nce([query], [])
    with pytest.raises(ConfigInvalid, match="temperature = 0 must be in"):
        patch_nce([query], [query], temperature=0)
