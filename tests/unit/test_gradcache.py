"""Cached gradients equal the gradients of the whole batch, with dropout as well."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lookalike.errors import ConfigInvalid
from training.loop.gradcache import cached_step, require_rowwise
from training.objectives import Embedded, concat, make_objective, objective_names


class Towers(nn.Module):
    """Images (n, 12) and texts (n, 9) -> unit rows (n, 8)."""

    def __init__(self, dropout):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(12, 32), nn.GELU(), nn.Dropout(dropout), nn.Linear(32, 8))
        self.text = nn.Sequential(nn.Linear(9, 32), nn.GELU(), nn.Dropout(dropout), nn.Linear(32, 8))

    def forward(self, chunk):
        images, texts, labels = chunk
        return Embedded(F.normalize(self.image(images), dim=1), labels, F.normalize(self.text(texts), dim=1))


def inputs(rows, chunk):
    torch.manual_seed(1)
    whole = torch.randn(rows, 12), torch.randn(rows, 9), torch.arange(rows) % 7
    return list(zip(*(part.split(chunk) for part in whole), strict=True))


def gradients(*modules):
    return {
        f"{i}.{name}": parameter.grad
        for i, module in enumerate(modules)
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("name", objective_names())
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_equals_the_whole_batch(name, dropout):
    torch.manual_seed(0)
    towers, objective, chunks = Towers(dropout), make_objective(name), inputs(45, 8)  # the last chunk has 5 rows
    twins = copy.deepcopy(towers), copy.deepcopy(objective)
    torch.manual_seed(5)
    expected = twins[1](concat([twins[0](chunk) for chunk in chunks]))
    expected.loss.backward()
    after = torch.get_rng_state()
    torch.manual_seed(5)
    outcome = cached_step(towers, chunks, objective)
    assert outcome.loss.item() == pytest.approx(expected.loss.item(), abs=1e-6)
    assert outcome.stats == pytest.approx(expected.stats, abs=1e-6)
    assert not outcome.loss.requires_grad
    expected_gradients = gradients(*twins)
    assert gradients(towers, objective).keys() == expected_gradients.keys() != set()
    for key, gradient in gradients(towers, objective).items():
        assert expected_gradients[key].abs().max() > 1e-4, key
        torch.testing.assert_close(gradient, expected_gradients[key], atol=1e-5, rtol=0)
    assert torch.equal(torch.get_rng_state(), after)  # what is drawn next does not depend on the second pass


def test_other_dropout_masks_give_another_gradient():
    """Other dropout masks in the second pass would exceed the tolerance of the test above."""
    torch.manual_seed(0)
    towers, chunks = Towers(0.5), inputs(45, 8)
    found = []
    for seed in (5, 6):
        towers.zero_grad()
        torch.manual_seed(seed)
        cached_step(towers, chunks, make_objective("clip"))
        found.append(towers.image[0].weight.grad.clone())
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_gradients_accumulate_except_in_frozen_towers():
    towers, chunks, objective = Towers(0.0), inputs(20, 6), make_objective("clip")
    towers.text.requires_grad_(False)
    cached_step(towers, chunks, objective)
    once = towers.image[0].weight.grad.clone()
    cached_step(towers, chunks, objective)
    torch.testing.assert_close(towers.image[0].weight.grad, 2 * once)
    assert towers.text[0].weight.grad is None


def test_memory_joins_the_references():
    towers, chunks, objective = Towers(0.0), inputs(20, 6), make_objective("info_nce")
    old = Embedded(F.normalize(torch.randn(30, 8), dim=1), torch.arange(30) % 7, torch.randn(30, 8))
    expected = objective(concat([towers(chunk) for chunk in chunks]), old).loss
    assert cached_step(towers, chunks, objective, memory=old).loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_layers_that_mix_rows_are_rejected_unless_frozen():
    towers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ConfigInvalid, match="1 normalizes over the batch"):
        require_rowwise(towers)
    towers[1].eval()
    require_rowwise(towers)
    with pytest.raises(ValueError, match="no chunks"):
        cached_step(Towers(0.0), [], make_objective("clip"))
