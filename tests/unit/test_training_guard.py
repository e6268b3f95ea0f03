"""Warnings of collapse, a loss stuck at its margin, nothing left to mine, and a learning rate that is too high."""

from __future__ import annotations

import pytest
import torch

from training.bases.open_clip import OPEN_CLIP_TRAITS
from training.lite.base import LITE_TRAITS
from training.loop.guard import TrainingGuard, learning_rate_warning, spread
from training.objectives import make_objective


def warnings(
    steps: int,
    loss: float,
    batch_spread: float,
    active: float,
    gap: float = 0.0,
    *,
    name: str = "triplet",
    total: int = 200,
) -> list[str]:
    guard = TrainingGuard(make_objective(name), total)
    stats = {"active": active, "positive_cosine": 0.5 + gap, "negative_cosine": 0.5}
    return [text for _ in range(steps) for text in guard.check(loss, batch_spread, stats)]


def test_healthy_run_gives_no_warning() -> None:
    assert warnings(200, 0.1, 0.8, 0.3) == []
    assert warnings(200, 0.2, 0.8, 0.3, gap=0.3) == []  # the mean loss equals the margin, but positives are nearer


@pytest.mark.parametrize(
    ("loss", "batch_spread", "active", "expected"),
    [
        (0.1, 0.02, 0.5, "collapsed"),
        (0.2, 0.5, 1.0, "stuck at the margin of 0.2"),
        (0.0, 0.9, 0.0, "nothing left to learn"),
        (float("nan"), 0.9, 0.5, "not finite"),
    ],
)
def test_each_fault_is_reported_once(loss: float, batch_spread: float, active: float, expected: str) -> None:
    texts = warnings(120, loss, batch_spread, active)
    assert len(texts) == 1
    assert expected in texts[0]


def test_few_bad_steps_are_no_collapse() -> None:
    assert warnings(20, 0.2, 0.0, 0.0) == []


def test_short_run_is_warned_before_its_end() -> None:
    texts = warnings(20, 0.1, 0.02, 0.5, total=20)
    assert len(texts) == 1
    assert "over the last 5 steps" in texts[0]


@pytest.mark.parametrize(
    ("name", "suggested", "unsuitable"),
    [
        ("triplet", "semi-hard", "temperature"),
        ("info_nce", "temperature", "semi-hard"),
        ("contrastive", "", "semi-hard"),
    ],
)
def test_suggestions_fit_the_objective(name: str, suggested: str, unsuitable: str) -> None:
    (text,) = warnings(60, 0.1, 0.02, 0.5, name=name)
    assert suggested in text
    assert unsuitable not in text


def test_spread_is_0_when_collapsed_and_near_1_when_random() -> None:
    rows = torch.nn.functional.normalize(torch.randn(256, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    assert spread(rows) > 0.98
    assert 0 <= spread(rows[:1].repeat(9, 1)) < 1e-6


def test_high_learning_rate_is_warned_of() -> None:
    limit = OPEN_CLIP_TRAITS.max_learning_rate
    assert learning_rate_warning(1e-5, limit, 0.0) is None
    text = learning_rate_warning(1e-3, limit, 0.0)
    assert text is not None
    assert "0.001" in text
    assert learning_rate_warning(1e-3, limit, 1.0) is None
    assert learning_rate_warning(1e-3, LITE_TRAITS.max_learning_rate, 0.0) is None
    assert learning_rate_warning(1e-1, LITE_TRAITS.max_learning_rate, 0.0) is not None
