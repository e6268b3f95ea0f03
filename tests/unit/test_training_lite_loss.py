"""The loss of the recipe of `lite`: equal to a naive loop in float64; edge cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from training.lite.losses import info_nce


def naive(images, texts, temperature, weights):
    n, total = len(images), 0.0
    score = [[float(images[i] @ texts[j]) / temperature for j in range(n)] for i in range(n)]
    for i in range(n):
        rows = math.log(sum(math.exp(score[i][j]) for j in range(n)))
        columns = math.log(sum(math.exp(score[j][i]) for j in range(n)))
        total += float(weights[i]) * (2 * score[i][i] - rows - columns)
    return -total / (2 * float(weights.sum()))


def unit(n, d, seed):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_naive_loop(n, temperature):
    images, texts = unit(n, 5, n), unit(n, 5, n + 100)
    weights = torch.linspace(0.5, 2, n, dtype=torch.float64)
    assert info_nce(images, texts, temperature).item() == pytest.approx(
        naive(images, texts, temperature, torch.ones(n)), abs=1e-12
    )
    assert info_nce(images, texts, temperature, weights).item() == pytest.approx(
        naive(images, texts, temperature, weights), abs=1e-12
    )


def test_loss_is_0_for_one_pair_and_log_n_for_equal_rows():
    assert info_nce(unit(1, 4, 0), unit(1, 4, 1), 0.05).item() == pytest.approx(0, abs=1e-12)
    same = unit(1, 4, 2).expand(8, 4)
    assert info_nce(same, same, 0.05).item() == pytest.approx(math.log(8))


def test_loss_is_symmetric_and_falls_when_pairs_approach():
    images, texts = unit(6, 8, 3), unit(6, 8, 4)
    assert info_nce(images, texts, 0.1).item() == pytest.approx(info_nce(texts, images, 0.1).item())
    nearer = F.normalize(texts + images, dim=-1)
    assert info_nce(images, nearer, 0.1) < info_nce(images, texts, 0.1)


def test_pair_of_weight_0_still_counts_as_negative():
    images, texts = unit(3, 4, 5), unit(3, 4, 6)
    weights = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    silenced = info_nce(images, texts, 0.1, weights).item()
    assert silenced == pytest.approx(naive(images, texts, 0.1, weights))
    assert silenced > info_nce(images[:2], texts[:2], 0.1).item()


def test_gradient_reaches_a_learned_temperature():
    temperature = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    images, texts = unit(5, 4, 7), unit(5, 4, 8)
    assert torch.autograd.gradcheck(lambda t: info_nce(images, texts, t), temperature)


def test_invalid_batches_are_rejected():
    with pytest.raises(ValueError, match="one shape"):
        info_nce(unit(2, 3, 0), unit(3, 3, 0), 0.1)
    with pytest.raises(ValueError, match="no pairs"):
        info_nce(unit(0, 3, 0), unit(0, 3, 0), 0.1)


def test_ignored_pairs_are_left_out():
    images, texts = unit(3, 5, 0), unit(3, 5, 1)
    ignored = torch.eye(3, dtype=torch.bool)  # a pair itself is never left out
    ignored[0, 1] = ignored[1, 0] = True
    exp = (images @ texts.T / 0.5).exp()
    kept = exp.masked_fill(ignored & ~torch.eye(3, dtype=torch.bool), 0)
    expected = -(exp.diagonal() / kept.sum(1)).log().mean() / 2 - (exp.diagonal() / kept.sum(0)).log().mean() / 2
    torch.testing.assert_close(info_nce(images, texts, 0.5, ignored=ignored), expected)
