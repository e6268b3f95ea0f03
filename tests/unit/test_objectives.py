"""Every objective: value and gradient equal a naive loop in float64; edge cases; learning."""

from __future__ import annotations

import doctest
import importlib
import math
import pkgutil

import pytest
import torch
from torch.nn import functional as F

import training.objectives
from lookalike.errors import ConfigInvalid
from tests import naive_losses
from training.objectives import Embedded, make_objective, objective_names

LABELLED = ("contrastive", "triplet", "cosine_pair", "info_nce", "simclr")
CASES = [
    ("contrastive", {}),
    ("contrastive", {"margin": 1.6, "balance": False}),
    ("triplet", {"mining": "all"}),
    ("triplet", {"mining": "hard"}),
    ("triplet", {"mining": "semihard", "margin": 0.9}),
    ("triplet", {"mining": "easy_excluded", "margin": 1.5}),
    ("triplet", {"margin": 0.7, "average": "pairs"}),
    ("triplet", {"margin": 0.7, "average": "anchors"}),
    ("triplet", {"mining": "semihard", "margin": 0.9, "average": "pairs"}),
    ("triplet", {"mining": "all", "average": "anchors"}),
    ("cosine_pair", {}),
    ("cosine_pair", {"balance": False, "floor": 0.1}),
    ("info_nce", {"temperature": 0.1}),
    ("info_nce", {"temperature": 2}),
    ("simclr", {"temperature": 0.5}),
]
LABELS = torch.tensor([0, 1, 0, 3, 4, 3, 0])


def unit(n, d, seed):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def batch_of(rows, labels):
    return Embedded(rows, torch.as_tensor(labels), rows.flip(1))


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("remembered", [0, 4])
def test_equals_the_naive_loop(name, options, remembered):
    rows, naive_rows = (unit(7, 3, 1).requires_grad_() for _ in range(2))
    old, old_labels = unit(remembered, 3, 2), torch.tensor([3, 0, 5, 1])[:remembered]
    memory = Embedded(old, old_labels) if remembered else None
    loss = make_objective(name, **options)(Embedded(rows, LABELS), memory).loss
    # The memory's rows follow the batch's.
    expected = getattr(naive_losses, name)(
        naive_rows, LABELS, torch.cat([naive_rows, old]), torch.cat([LABELS, old_labels]), **options
    )
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    loss.backward()
    expected.backward()
    # On the sphere 2 - 2 s is the squared distance, off it is not: what a unit row can follow is the tangent part.
    torch.testing.assert_close(tangent(rows), tangent(naive_rows), atol=1e-10, rtol=0)


def tangent(rows):
    rows, slope = rows.detach(), rows.grad
    return slope - (slope * rows).sum(1, keepdim=True) * rows


@pytest.mark.parametrize("remembered", [0, 3])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_clip_equals_the_naive_loop(temperature, remembered):
    pairs = [[t.requires_grad_() for t in (unit(5, 4, 1), unit(5, 4, 2))] for _ in range(2)]
    old = unit(remembered, 4, 3), unit(remembered, 4, 4)
    objective = make_objective("clip", temperature=temperature)
    outcome = objective(Embedded(pairs[0][0], None, pairs[0][1]), Embedded(old[0], None, old[1]))
    images, texts = pairs[1]
    scale = torch.tensor(-math.log(temperature), requires_grad=True)  # float32 as the parameter is
    expected = naive_losses.clip(
        images, texts, torch.cat([images, old[0]]), torch.cat([texts, old[1]]), 1 / scale.exp().double()
    )
    assert outcome.loss.item() == pytest.approx(expected.item(), abs=1e-12)
    outcome.loss.backward()
    expected.backward()
    for ours, naive in zip(pairs[0], pairs[1], strict=True):
        torch.testing.assert_close(ours.grad, naive.grad, atol=1e-12, rtol=0)
    assert objective.log_scale.grad.item() == pytest.approx(scale.grad.item(), rel=1e-5)


def test_temperature_over_texts_is_the_learned_one_of_clip():
    clip = make_objective("clip", temperature=0.05, min_temperature=0.02)
    assert clip.text_temperature == pytest.approx(0.05)
    with torch.no_grad():
        clip.log_scale.fill_(10.0)
    assert clip.text_temperature == pytest.approx(0.02)
    others = [make_objective(name) for name in objective_names() if name != "clip"]
    assert {objective.text_temperature for objective in others if objective.needs != "captions"} == {None}


@pytest.mark.parametrize("name", objective_names())
@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([0, 1, 2, 3], "no positive"),
        ([5, 5, 5, 5], "no negative"),
        ([7], "one row"),
        ([1, 1], "one pair"),
        ([0, 1], "one negative pair"),
    ],
)
@pytest.mark.parametrize("alike", [False, True], ids=["apart", "collapsed"])
def test_degenerate_batch_has_finite_loss_and_gradient(name, labels, why, alike):
    # A basis vector: its distance to itself is 0 to the last bit, where a square root has no slope.
    start = torch.eye(8)[:1].expand(len(labels), 8) if alike else unit(len(labels), 8, 1).float()
    rows = start.clone().requires_grad_()
    outcome = make_objective(name)(batch_of(rows, labels))
    outcome.loss.backward()
    assert torch.isfinite(outcome.loss)
    assert torch.isfinite(rows.grad).all()
    assert all(math.isfinite(figure) for figure in outcome.stats.values()), why


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        *((name, [7]) for name in objective_names()),
        *((name, [0, 1, 2]) for name in ("triplet", "info_nce", "simclr")),
        *((name, [4, 4, 4]) for name in ("triplet", "info_nce", "simclr")),
    ],
)
def test_loss_is_0_without_pairs(name, labels):
    rows = unit(len(labels), 8, 1).float().requires_grad_()
    outcome = make_objective(name)(batch_of(rows, labels))
    outcome.loss.backward()
    assert outcome.loss.item() == 0
    assert rows.grad.abs().max() == 0


def test_figures_of_a_small_batch():
    east, north = [1.0, 0.0], [0.0, 1.0]
    rows = torch.tensor([east, east, north, north])
    right = make_objective("triplet")(Embedded(rows, torch.tensor([0, 0, 1, 1])))
    assert right.loss.item() == 0
    assert right.stats == {
        "positive_cosine": 1, "negative_cosine": 0, "accuracy": 1, "triplets": 8, "active": 0,
    }  # fmt: skip
    wrong = make_objective("triplet")(Embedded(rows, torch.tensor([0, 1, 0, 1])))
    assert wrong.loss.item() == pytest.approx(2.2 / 2 + 0.2 / 2)  # D(a, p) = 2; D(a, n) is 0 or 2
    assert wrong.stats == {
        "positive_cosine": 0, "negative_cosine": 0.5, "accuracy": 0, "triplets": 8, "active": 1,
    }  # fmt: skip
    near = make_objective("contrastive", margin=1.5)(Embedded(rows, torch.tensor([0, 0, 1, 1])))
    assert near.stats["active"] == 1  # sqrt(2) < 1.5
    assert near.loss.item() == pytest.approx((1.5 - math.sqrt(2)) ** 2 / 2)


@pytest.mark.parametrize(("mining", "loss"), [("all", 0.2), ("hard", 0.2), ("semihard", 0), ("easy_excluded", 0.2)])
def test_negative_as_near_as_the_positive_is_hard(mining, loss):
    collapsed = Embedded(torch.eye(4)[:1].expand(6, 4), LABELS[:6])
    outcome = make_objective("triplet", mining=mining)(collapsed)
    assert outcome.loss.item() == pytest.approx(loss)
    assert outcome.stats["active"] == 1


def test_negative_exactly_at_the_margin_is_easy():
    rows = torch.eye(4)[[0, 0, 1]]  # D(a, p) = 0, D(a, n) = 2
    batch = Embedded(rows, torch.tensor([0, 0, 1]))
    for mining in ("semihard", "easy_excluded"):
        outcome = make_objective("triplet", mining=mining, margin=2)(batch)
        assert (outcome.loss.item(), outcome.stats["active"]) == (0, 0)


def test_clip_reports_both_directions():
    images = torch.eye(3)
    texts = images[[0, 0, 2]]  # text 1 looks like text 0; image 1 like none
    stats = make_objective("clip")(Embedded(images, None, texts)).stats
    assert stats["image_to_text_accuracy"] == pytest.approx(2 / 3)
    assert stats["text_to_image_accuracy"] == pytest.approx(2 / 3)
    assert stats["positive_cosine"] == pytest.approx(2 / 3)
    assert stats["negative_cosine"] == pytest.approx(1 / 6)
    assert stats["temperature"] == pytest.approx(0.07)


def test_clip_temperature_can_leave_its_bound():
    objective = make_objective("clip", temperature=0.5, min_temperature=0.2)
    step = torch.optim.SGD(objective.parameters(), lr=10.0)
    eye = torch.eye(4)
    for texts, expected in ((eye, 0.2), (eye.roll(1, 0), 1.0)):  # all right: colder; all wrong: warmer
        for _ in range(20):
            step.zero_grad()
            outcome = objective(Embedded(eye, None, texts))
            outcome.loss.backward()
            step.step()
        assert objective(Embedded(eye, None, texts)).stats["temperature"] == pytest.approx(expected)


@pytest.mark.parametrize("name", objective_names())
def test_cosines_are_computed_without_autocast(name):
    rows = unit(6, 16, 3).float()
    batch = batch_of(rows, [0, 0, 1, 1, 2, 2])
    plain = make_objective(name)(batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert make_objective(name)(batch).loss.item() == plain.item()


@pytest.mark.parametrize("name", objective_names())
def test_learns_to_separate_classes(name):
    torch.manual_seed(0)
    centers = torch.randn(4, 12)
    labels = torch.arange(32) % (16 if name == "simclr" else 4)  # 16 images of two views each
    inputs = centers[labels % 4] + 2.0 * torch.randn(32, 12)
    texts = F.normalize(torch.randn(32, 6), dim=1)
    tower, objective = torch.nn.Linear(12, 6), make_objective(name)
    optimizer = torch.optim.Adam([*tower.parameters(), *objective.parameters()], lr=0.02)
    outcomes = []
    for _ in range(60):
        outcome = objective(Embedded(F.normalize(tower(inputs), dim=1), labels, texts))
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
        outcomes.append(outcome)
    first, last = outcomes[0], outcomes[-1]
    assert last.loss < 0.8 * first.loss
    assert separation(last) > separation(first) + 0.15


def separation(outcome):
    return outcome.stats["positive_cosine"] - outcome.stats["negative_cosine"]


def test_incomplete_and_empty_batches_are_rejected():
    rows = unit(2, 3, 1)
    with pytest.raises(ValueError, match="Triplet needs labels"):
        make_objective("triplet")(Embedded(rows))
    with pytest.raises(ValueError, match="Clip needs texts"):
        make_objective("clip")(Embedded(rows, torch.tensor([0, 1])))
    with pytest.raises(ValueError, match="no rows"):
        make_objective("contrastive")(Embedded(rows[:0], torch.tensor([], dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"labels must be \(2,\)"):
        Embedded(rows, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"texts must be \(2, 3\)"):
        Embedded(rows, None, rows[:1])
    with pytest.raises(ValueError, match=r"images must be \(n, d\)"):
        Embedded(rows[0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "tripletto",
            {},
            "objective.name = 'tripletto' is unknown; known: contrastive, triplet, cosine_pair, info_nce, clip",
        ),
        ("triplet", {"margins": 1}, "unknown option 'margins' of objective triplet; known: margin, mining, average"),
        ("triplet", {"mining": "medium"}, "mining = 'medium' must be one of all, hard, semihard, easy_excluded"),
        ("triplet", {"average": "all"}, "average = 'all' must be one of triplets, pairs, anchors"),
        ("triplet", {"margin": 0}, r"margin = 0.0 must be in \(0, 4\)"),
        ("triplet", {"margin": "wide"}, "margin = 'wide' must be a number"),
        ("triplet", {"margin": True}, "margin = True must be a number"),
        ("contrastive", {"margin": 2.5}, r"margin = 2.5 must be in \(0, 2\]"),
        ("contrastive", {"balance": 1}, "balance = 1 must be true or false"),
        ("cosine_pair", {"floor": 1.0}, r"floor = 1.0 must be in \[-1, 1\)"),
        ("info_nce", {"temperature": 0}, "temperature = 0.0 must be in"),
        ("simclr", {"temperature": math.nan}, "temperature = nan must be in"),
        ("clip", {"temperature": 0.001}, "temperature = 0.001 must be at least 0.01"),
        ("clip", {"temperature": 3}, "temperature = 3.0 must be at most 1.0"),
        ("clip", {"min_temperature": -1}, "min_temperature = -1.0 must be at least 0.001"),
    ],
)
def test_unknown_name_or_option_lists_the_known_ones(name, options, message):
    with pytest.raises(ConfigInvalid, match=message):
        make_objective(name, **options)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(training.objectives.__path__)])
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(f"training.objectives.{name}")).failed == 0
