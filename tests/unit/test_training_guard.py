"""The guard rails: collapse, a loss stuck at its margin, nothing left to mine, a learning rate that is too high."""

from __future__ import annotations

import pytest
import torch

from training.loop.guard import Watch, learning_rate_warning, spread
from training.objectives import make_objective


def watch(
    steps: int, loss: float, spread_now: float, active: float, gap: float = 0.0, *, name: str = "triplet", of: int = 200
) -> list[str]:
    watching = Watch(make_objective(name), of)
    stats = {"active": active, "positive_cosine": 0.5 + gap, "negative_cosine": 0.5}
    return [text for _ in range(steps) for text in watching.look(loss, spread_now, stats)]


def test_a_healthy_run_is_left_alone() -> None:
    assert watch(200, 0.1, 0.8, 0.3) == []
    assert watch(200, 0.2, 0.8, 0.3, gap=0.3) == []  # mined triplets cost the margin on the mean, and yet it learns


@pytest.mark.parametrize(
    ("loss", "spread_now", "active", "said"),
    [
        (0.1, 0.02, 0.5, "collapsed"),
        (0.2, 0.5, 1.0, "stuck at the margin of 0.2"),
        (0.0, 0.9, 0.0, "nothing left to learn"),
        (float("nan"), 0.9, 0.5, "not finite"),
    ],
)
def test_each_fault_is_said_once_and_in_words(loss: float, spread_now: float, active: float, said: str) -> None:
    texts = watch(120, loss, spread_now, active)
    assert len(texts) == 1
    assert said in texts[0]


def test_a_few_bad_steps_are_no_collapse() -> None:
    assert watch(20, 0.2, 0.0, 0.0) == []


def test_a_short_run_is_told_before_it_ends() -> None:
    texts = watch(20, 0.1, 0.02, 0.5, of=20)
    assert len(texts) == 1
    assert "over the last 5 steps" in texts[0]


@pytest.mark.parametrize(
    ("name", "offered", "foreign"),
    [
        ("triplet", "semi-hard", "temperature"),
        ("info_nce", "temperature", "semi-hard"),
        ("contrastive", "", "semi-hard"),
    ],
)
def test_only_what_the_objective_has_is_advised(name: str, offered: str, foreign: str) -> None:
    (text,) = watch(60, 0.1, 0.02, 0.5, name=name)
    assert offered in text
    assert foreign not in text


def test_a_collapsed_batch_has_no_spread_and_random_directions_have_nearly_one() -> None:
    rows = torch.nn.functional.normalize(torch.randn(256, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    assert spread(rows) > 0.98
    assert 0 <= spread(rows[:1].repeat(9, 1)) < 1e-6


def test_a_rate_for_training_from_scratch_is_warned_of() -> None:
    assert learning_rate_warning("open_clip", 1e-5, 0.0) is None
    text = learning_rate_warning("open_clip", 1e-3, 0.0)
    assert text is not None
    assert "0.001" in text
    assert learning_rate_warning("open_clip", 1e-3, 1.0) is None
    assert learning_rate_warning("lite", 1e-3, 0.0) is None
    assert learning_rate_warning("lite", 1e-1, 0.0) is not None
