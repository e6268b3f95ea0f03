"""Objectives have the same values as the same losses of pytorch-metric-learning and open_clip."""

from __future__ import annotations

import pytest
import torch
from open_clip.loss import ClipLoss
from pytorch_metric_learning import distances, losses, miners, reducers
from torch.nn import functional as F

from training.lite.losses import info_nce
from training.objectives import Embedded, make_objective
from training.objectives.triplet import count_valid_triplets, valid_triplets

SQUARED = distances.LpDistance(normalize_embeddings=False, power=2)


def batch(n=24, classes=5, d=6):
    torch.manual_seed(n)
    return F.normalize(torch.randn(n, d, dtype=torch.float64), dim=1), torch.randint(classes, (n,))


@pytest.mark.parametrize(
    ("mining", "theirs"), [("all", None), ("hard", "hard"), ("semihard", "semihard"), ("easy_excluded", "all")]
)
def test_triplet_equals_pytorch_metric_learning(mining, theirs):
    rows, labels = batch()
    loss = losses.TripletMarginLoss(0.2, distance=SQUARED, reducer=reducers.MeanReducer())
    miner = theirs and miners.TripletMarginMiner(0.2, theirs, distance=SQUARED)
    expected = loss(rows, labels, miner(rows, labels) if miner else None)
    assert expected > 0
    ours = make_objective("triplet", mining=mining)(Embedded(rows, labels)).loss
    assert ours.item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("name", ["info_nce", "simclr"])
def test_info_nce_equals_pytorch_metric_learning(name):
    rows, labels = batch()
    labels = torch.arange(24) // 2 if name == "simclr" else labels
    ours = make_objective(name, temperature=0.3)(Embedded(rows, labels)).loss
    assert ours.item() == pytest.approx(losses.NTXentLoss(0.3)(rows, labels).item(), abs=1e-12)


def test_clip_equals_open_clip_and_the_loss_of_lite():
    images, texts = batch(9)[0], batch(9, d=6)[0].roll(1, 1)
    ours = make_objective("clip", temperature=0.25)(Embedded(images, None, texts)).loss.item()
    assert ours == pytest.approx(ClipLoss()(images, texts, 4.0).item(), abs=1e-6)
    assert ours == pytest.approx(info_nce(images, texts, 0.25).item(), abs=1e-6)


def test_triplets_of_six_rows():
    labels = torch.tensor([0, 1, 0, 3, 4, 3])
    mask = valid_triplets(labels)
    loops = {
        (a, p, n)
        for a in range(6)
        for p in range(6)
        for n in range(6)
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]
    }
    assert {tuple(triplet) for triplet in mask.nonzero().tolist()} == loops
    assert len(loops) == count_valid_triplets(labels) == 16
    rows = batch(6)[0]
    assert make_objective("triplet")(Embedded(rows, labels)).stats["triplets"] == 16
