"""Pairs, thresholds, curves and intervals against loops and against cases that a reader can check."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.calibrate import expected_calibration_error, fit, probabilities_of
from evaluation.extras import need, require
from evaluation.intervals import mean_interval
from evaluation.options import Options
from evaluation.pair_measure import PairSample, listed_pairs, measure_pairs
from evaluation.pairs import (
    best_threshold,
    cosine_gap,
    decision_figures,
    pairs_by_caption,
    pairs_by_label,
    roc_figures,
    weighted_figures,
)
from evaluation.weighted_pairs import WeightedPairs
from lookalike.errors import ExtraMissing

seeds = st.integers(0, 10_000)


def sample(seed, count=40, gap=0.3):
    """Cosines rounded so that some are equal; positives lie higher."""
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.5
    same[:2] = True, False
    return np.clip(np.round(rng.normal(0.3 + gap * same, 0.2), 2), -1, 1), same


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_pairs_of_labels_are_what_they_say(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rng.integers(1, 20))
    pairs = pairs_by_label(labels, rng)
    assert (labels[pairs.left] == labels[pairs.right]).tolist() == pairs.same.tolist()
    assert not (pairs.left == pairs.right).any()
    anchors = [i for i in range(len(labels)) if 1 < (labels == labels[i]).sum() < len(labels)]
    assert pairs.left[pairs.same].tolist() == pairs.left[~pairs.same].tolist() == anchors


def test_every_partner_is_drawn_as_often():
    labels = np.array([0, 1, 0, 1, 0, 2])
    counts = {True: np.zeros(6), False: np.zeros(6)}
    rng = np.random.default_rng(0)
    for _ in range(4000):
        pairs = pairs_by_label(labels, rng)
        for same in (True, False):
            counts[same][pairs.right[(pairs.left == 0) & (pairs.same == same)]] += 1
    np.testing.assert_allclose(counts[True] / 4000, [0, 0, 0.5, 0, 0.5, 0], atol=0.04)
    np.testing.assert_allclose(counts[False] / 4000, [0, 1 / 3, 0, 1 / 3, 0, 1 / 3], atol=0.04)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_pairs_of_captions_are_what_they_say(seed):
    rng = np.random.default_rng(seed)
    owners = rng.permutation(np.concatenate([np.arange(5), rng.integers(0, 5, 9)]))
    pairs = pairs_by_caption(owners, rng)
    assert (owners[pairs.right] == pairs.left).tolist() == pairs.same.tolist()
    assert pairs.left.tolist() == [*range(5), *range(5)]
    assert len(pairs_by_caption(np.zeros(3, np.int64), rng).left) == 0


def counts(cosines, same, threshold):
    similar = [1 - cosine <= threshold for cosine in cosines]
    return [
        sum(s == a and t == b for s, t in zip(similar, same, strict=True))
        for a, b in itertools.product([True, False], [True, False])
    ]


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_decision_figures_agree_with_counting(seed):
    cosines, same = sample(seed)
    true, false, missed, rest = counts(cosines, same, 0.5)
    figures = decision_figures(cosines, same, 0.5)
    assert figures["accuracy"] == pytest.approx((true + rest) / len(same))
    assert figures["precision"] == pytest.approx(true / (true + false) if true + false else 0)
    assert figures["recall"] == pytest.approx(true / (true + missed))
    assert figures["f1"] == pytest.approx(2 * true / (2 * true + false + missed))
    repeated = np.random.default_rng(seed).integers(0, 3, len(same))
    copies = np.repeat(np.arange(len(same)), repeated)
    assert weighted_figures(1 - cosines <= 0.5, same, repeated) == pytest.approx(
        decision_figures(cosines[copies], same[copies], 0.5)
    )


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_no_threshold_has_a_better_f1(seed):
    cosines, same = sample(seed)
    best = max(decision_figures(cosines, same, float(t))["f1"] for t in np.linspace(0, 2, 801))
    found = best_threshold(cosines, same)
    assert decision_figures(cosines, same, found)["f1"] == pytest.approx(best, abs=1e-12)


def test_a_threshold_needs_a_positive_pair():
    with pytest.raises(ValueError, match="positive"):
        best_threshold(np.array([0.5]), np.array([False]))
    assert best_threshold(np.array([0.5]), np.array([True])) == 0.5


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_area_is_the_share_of_pairs_in_the_right_order_and_both_errors_are_equal(seed):
    cosines, same = sample(seed)
    order = [(p > n) + 0.5 * (p == n) for p, n in itertools.product(cosines[same].tolist(), cosines[~same].tolist())]
    figures = roc_figures(cosines, same)
    assert figures["roc_auc"] == pytest.approx(np.mean(order))
    # the equal error rate lies between the errors of the two thresholds around it
    errors = [((cosines[~same] >= t).mean(), (cosines[same] < t).mean()) for t in [*np.unique(cosines), np.inf]]
    before = min((false, missed) for false, missed in errors if false >= missed)
    after = max((false, missed) for false, missed in errors if false <= missed)
    assert min(after[0], before[1]) - 1e-9 <= figures["equal_error_rate"] <= max(before[0], after[1]) + 1e-9


def test_perfect_and_hopeless_cosines():
    same = np.array([True, True, False, False])
    assert roc_figures(np.array([0.9, 0.8, 0.2, 0.1]), same) == {"roc_auc": 1.0, "equal_error_rate": 0.0}
    assert roc_figures(np.array([0.1, 0.2, 0.8, 0.9]), same) == {"roc_auc": 0.0, "equal_error_rate": 1.0}
    assert roc_figures(np.full(4, 0.5), same) == {"roc_auc": 0.5, "equal_error_rate": 0.5}
    with pytest.raises(ValueError, match="positive and negative"):
        roc_figures(np.array([0.5]), np.array([True]))
    gap = cosine_gap(np.array([0.9, 0.7, 0.2, 0.2]), same)
    assert gap == pytest.approx({"positive_cosine": 0.8, "negative_cosine": 0.2, "cosine_gap": 0.6})


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(["isotonic", "platt"]))
def test_a_curve_never_falls(seed, method):
    cosines, same = sample(seed, gap=np.random.default_rng(seed).uniform(-0.3, 0.6))
    curve = fit(cosines, same, method)
    asked = np.linspace(-1, 1, 401)
    probabilities = probabilities_of(curve, asked)
    assert (np.diff(probabilities) >= 0).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert curve.probability(0.37) == pytest.approx(np.interp(0.37, curve.cosines, curve.probabilities))
    assert curve.threshold == pytest.approx(best_threshold(cosines, same), abs=1e-6)


def test_pairs_that_a_hair_divides_give_a_step_and_no_overflow():
    rng = np.random.default_rng(0)
    cosines = np.concatenate([np.full(8, 1.0), rng.uniform(0.9, 0.992, 8), [-0.9]])
    with np.errstate(all="raise"):
        curve = fit(cosines, np.arange(17) < 8, "platt")
    assert curve.probability(1.0) > 0.95
    assert curve.probability(-0.9) == 0.0


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_curve_finds_the_probability_that_made_the_pairs(method):
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-0.2, 1, 20_000)
    truth = 1 / (1 + np.exp(-10 * (cosines - 0.4)))
    same = rng.random(20_000) < truth
    curve = fit(cosines, same, method)
    asked = np.linspace(0, 0.8, 9)
    np.testing.assert_allclose(probabilities_of(curve, asked), 1 / (1 + np.exp(-10 * (asked - 0.4))), atol=0.06)
    assert expected_calibration_error(probabilities_of(curve, cosines), same) < 0.02
    assert expected_calibration_error(np.full(20_000, 0.99), same) > 0.4


def test_the_calibration_error_agrees_with_its_loop():
    rng = np.random.default_rng(3)
    stated, same = np.round(rng.random(300), 2), rng.random(300) < 0.5
    total = 0.0
    for low in np.arange(15) / 15:
        inside = [i for i in range(300) if low <= stated[i] < low + 1 / 15 or (stated[i] == 1 and low == 14 / 15)]
        if inside:
            total += len(inside) / 300 * abs(np.mean(same[inside]) - np.mean(stated[inside]))
    assert expected_calibration_error(stated, same) == pytest.approx(total, abs=1e-9)


def test_one_kind_of_pair_alone_is_refused_or_left_out():
    cosines = np.array([0.2, 0.4])
    with pytest.raises(ValueError, match="positive and negative"):
        fit(cosines, np.array([True, True]))
    one, both = (PairSample(cosines, np.array(same), np.arange(2)) for same in ([True, True], [True, False]))
    assert measure_pairs(one, both, Options()) is None
    assert measure_pairs(both, one, Options()) is None


def test_a_list_is_halved_with_its_share_of_positives():
    rng = np.random.default_rng(0)
    same = rng.random(101) < 0.3
    first, second = listed_pairs(rng.random(101), same, seed=0)
    assert sorted([*first.anchors, *second.anchors]) == list(range(101))
    assert abs(int(first.same.sum()) - int(second.same.sum())) <= 1
    again, _ = listed_pairs(rng.random(101), same, seed=1)
    assert sorted(again.anchors) != sorted(first.anchors)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for number in range(200):
        low, high = mean_interval((rng.random(60) < 0.7).astype(float), resamples=200, seed=number)
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(ExtraMissing, match=r"no_such_package is not installed: pip install 'lookalike\[train\]'"):
        need("no_such_package.inside")
    with pytest.raises(ExtraMissing, match=r"the report needs no_such, nor_this: pip install 'lookalike\[train\]'"):
        require(("numpy", "no_such", "nor_this"), "the report")


def test_with_weights_of_one_the_figures_are_the_plain_ones_and_weights_are_repetitions():
    rng = np.random.default_rng(5)
    same = rng.random(300) < 0.4
    cosines = np.round(rng.normal(same * 0.5, 0.3), 2)  # rounded, so that there are ties
    stated = rng.random(300)
    pairs = WeightedPairs(cosines, same, 0.7, stated)
    plain = {
        **decision_figures(cosines, same, 0.7),
        **roc_figures(cosines, same),
        **cosine_gap(cosines, same),
        "expected_calibration_error": expected_calibration_error(stated, same),
    }
    assert pairs.figures(np.ones(300, np.int64)) == pytest.approx(plain)
    counts = rng.integers(0, 4, 300)
    many = [np.repeat(each, counts) for each in (cosines, same, stated)]
    repeated = WeightedPairs(many[0], many[1], 0.7, many[2]).figures(np.ones(len(many[0]), np.int64))
    assert pairs.figures(counts) == pytest.approx(repeated)
    assert "roc_auc" not in pairs.figures(same.astype(np.int64))  # no negative pair was drawn
