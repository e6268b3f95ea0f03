"""Pairs, thresholds, curves and intervals against loops and against cases that a reader can check."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.calibrate import expected_calibration_error, fit, probabilities_of
from evaluation.datasets import Example
from evaluation.extras import import_extra, require_packages
from evaluation.groups import group_examples
from evaluation.intervals import mean_interval
from evaluation.options import Options
from evaluation.pair_evaluation import PairSample, measure_pairs, split_pair_list
from evaluation.pairs import (
    best_threshold,
    cosine_gap,
    decision_metrics,
    pairs_by_label,
    pairs_by_search,
    roc_metrics,
    weighted_metrics,
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
def test_label_pairs_match_their_kind(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, rng.integers(1, 20))
    groups = labels // 2  # two classes belong together
    pairs = pairs_by_label(labels, groups, rng)
    assert (labels[pairs.left] == labels[pairs.right])[pairs.same].all()
    assert (groups[pairs.left] != groups[pairs.right])[~pairs.same].all()
    assert not (pairs.left == pairs.right).any()
    anchors = [i for i in range(len(labels)) if (labels == labels[i]).sum() > 1 and (groups != groups[i]).any()]
    assert pairs.left[pairs.same].tolist() == pairs.left[~pairs.same].tolist() == anchors


def test_partners_are_drawn_uniformly():
    labels = np.array([0, 1, 0, 1, 0, 2])
    counts = {True: np.zeros(6), False: np.zeros(6)}
    rng = np.random.default_rng(0)
    for _ in range(4000):
        pairs = pairs_by_label(labels, labels, rng)
        for same in (True, False):
            counts[same][pairs.right[(pairs.left == 0) & (pairs.same == same)]] += 1
    np.testing.assert_allclose(counts[True] / 4000, [0, 0, 0.5, 0, 0.5, 0], atol=0.04)
    np.testing.assert_allclose(counts[False] / 4000, [0, 1 / 3, 0, 1 / 3, 0, 1 / 3], atol=0.04)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_search_pairs_equal_naive_loop(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    items, owners = rng.normal(size=(count, 3)), rng.integers(0, count, 9)
    queries = items[owners] + rng.normal(size=(9, 3))
    queries, items = (each.astype(np.float32) for each in (queries, items))
    groups, candidates = rng.integers(0, 4, count), rng.random(count) < 0.7
    expected = {}
    for query in range(9):
        wrong = [i for i in range(count) if candidates[i] and groups[i] != groups[owners[query]]]
        scores = queries[query] @ items.T
        if wrong and scores[owners[query]] > scores[wrong].max():
            expected[query] = (owners[query], wrong[scores[wrong].argmax()])
    pairs = pairs_by_search(queries, items, owners, groups, candidates)
    assert pairs.left.tolist() == [*expected, *expected]
    assert pairs.right.tolist() == [pair[side] for side in (0, 1) for pair in expected.values()]
    assert pairs.same.tolist() == [True] * len(expected) + [False] * len(expected)


def test_tied_wrong_item_means_not_found():
    items = np.array([[1, 0], [1, 0]], np.float32)
    pairs = pairs_by_search(items[:1], items, np.array([0]), np.array([0, 1]), np.ones(2, bool))
    assert len(pairs.left) == 0


def test_equal_labels_or_captions_make_a_group():
    examples = [
        Example("a", bytes, "pear", ("A pear on a table",)),
        Example("b", bytes, None, (" a PEAR  on a table", "still life")),
        Example("c", bytes, "plum", ("Still life",)),  # belongs to a through b
        Example("d", bytes, "Pear"),
        Example("e", bytes, "apple"),
        Example("f", bytes),
        Example("g", bytes),
    ]
    assert group_examples(examples).tolist() == [0, 0, 0, 0, 1, 2, 3]
    only = [Example(str(i), bytes, "images", (f"caption {i}",)) for i in range(3)]
    assert group_examples(only).tolist() == [0, 1, 2]  # a folder's name, not a class


def counts(cosines, same, threshold):
    similar = [1 - cosine <= threshold for cosine in cosines]
    return [
        sum(s == a and t == b for s, t in zip(similar, same, strict=True))
        for a, b in itertools.product([True, False], [True, False])
    ]


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_decision_metrics_equal_counts(seed):
    cosines, same = sample(seed)
    true, false, missed, rest = counts(cosines, same, 0.5)
    metrics = decision_metrics(cosines, same, 0.5)
    assert metrics["accuracy"] == pytest.approx((true + rest) / len(same))
    assert metrics["precision"] == pytest.approx(true / (true + false) if true + false else 0)
    assert metrics["recall"] == pytest.approx(true / (true + missed))
    assert metrics["f1"] == pytest.approx(2 * true / (2 * true + false + missed))
    repeated = np.random.default_rng(seed).integers(0, 3, len(same))
    copies = np.repeat(np.arange(len(same)), repeated)
    assert weighted_metrics(1 - cosines <= 0.5, same, repeated) == pytest.approx(
        decision_metrics(cosines[copies], same[copies], 0.5)
    )


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_best_threshold_maximizes_f1(seed):
    cosines, same = sample(seed)
    best = max(decision_metrics(cosines, same, float(t))["f1"] for t in np.linspace(0, 2, 801))
    found = best_threshold(cosines, same)
    assert decision_metrics(cosines, same, found)["f1"] == pytest.approx(best, abs=1e-12)


def test_threshold_needs_positive_pair():
    with pytest.raises(ValueError, match="positive"):
        best_threshold(np.array([0.5]), np.array([False]))
    assert best_threshold(np.array([0.5]), np.array([True])) == 0.5


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_roc_auc_and_equal_error_rate_equal_definitions(seed):
    cosines, same = sample(seed)
    order = [(p > n) + 0.5 * (p == n) for p, n in itertools.product(cosines[same].tolist(), cosines[~same].tolist())]
    metrics = roc_metrics(cosines, same)
    assert metrics["roc_auc"] == pytest.approx(np.mean(order))
    # the equal error rate lies between the errors of the two thresholds around it
    errors = [((cosines[~same] >= t).mean(), (cosines[same] < t).mean()) for t in [*np.unique(cosines), np.inf]]
    before = min((false, missed) for false, missed in errors if false >= missed)
    after = max((false, missed) for false, missed in errors if false <= missed)
    assert min(after[0], before[1]) - 1e-9 <= metrics["equal_error_rate"] <= max(before[0], after[1]) + 1e-9


def test_roc_of_perfect_and_reversed_cosines():
    same = np.array([True, True, False, False])
    assert roc_metrics(np.array([0.9, 0.8, 0.2, 0.1]), same) == {"roc_auc": 1.0, "equal_error_rate": 0.0}
    assert roc_metrics(np.array([0.1, 0.2, 0.8, 0.9]), same) == {"roc_auc": 0.0, "equal_error_rate": 1.0}
    assert roc_metrics(np.full(4, 0.5), same) == {"roc_auc": 0.5, "equal_error_rate": 0.5}
    with pytest.raises(ValueError, match="positive and negative"):
        roc_metrics(np.array([0.5]), np.array([True]))
    gap = cosine_gap(np.array([0.9, 0.7, 0.2, 0.2]), same)
    assert gap == pytest.approx({"positive_cosine": 0.8, "negative_cosine": 0.2, "cosine_gap": 0.6})


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(["isotonic", "platt"]))
def test_calibration_curve_is_monotonic(seed, method):
    cosines, same = sample(seed, gap=np.random.default_rng(seed).uniform(-0.3, 0.6))
    curve = fit(cosines, same, method)
    grid = np.linspace(-1, 1, 401)
    probabilities = probabilities_of(curve, grid)
    assert (np.diff(probabilities) >= 0).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert curve.probability(0.37) == pytest.approx(np.interp(0.37, curve.cosines, curve.probabilities))
    assert curve.threshold == pytest.approx(best_threshold(cosines, same), abs=1e-6)


def test_nearly_separable_pairs_give_step_without_overflow():
    rng = np.random.default_rng(0)
    cosines = np.concatenate([np.full(8, 1.0), rng.uniform(0.9, 0.992, 8), [-0.9]])
    with np.errstate(all="raise"):
        curve = fit(cosines, np.arange(17) < 8, "platt")
    assert curve.probability(1.0) > 0.95
    assert curve.probability(-0.9) == 0.0


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_calibration_recovers_true_probabilities(method):
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-0.2, 1, 20_000)
    truth = 1 / (1 + np.exp(-10 * (cosines - 0.4)))
    same = rng.random(20_000) < truth
    curve = fit(cosines, same, method)
    grid = np.linspace(0, 0.8, 9)
    np.testing.assert_allclose(probabilities_of(curve, grid), 1 / (1 + np.exp(-10 * (grid - 0.4))), atol=0.06)
    assert expected_calibration_error(probabilities_of(curve, cosines), same) < 0.02
    assert expected_calibration_error(np.full(20_000, 0.99), same) > 0.4


def test_calibration_error_equals_naive_loop():
    rng = np.random.default_rng(3)
    stated, same = np.round(rng.random(300), 2), rng.random(300) < 0.5
    total = 0.0
    for low in np.arange(15) / 15:
        inside = [i for i in range(300) if low <= stated[i] < low + 1 / 15 or (stated[i] == 1 and low == 14 / 15)]
        if inside:
            total += len(inside) / 300 * abs(np.mean(same[inside]) - np.mean(stated[inside]))
    assert expected_calibration_error(stated, same) == pytest.approx(total, abs=1e-9)


def test_single_kind_of_pair_is_rejected_or_skipped():
    cosines = np.array([0.2, 0.4])
    with pytest.raises(ValueError, match="positive and negative"):
        fit(cosines, np.array([True, True]))
    one, both = (PairSample(cosines, np.array(same), np.arange(2)) for same in ([True, True], [True, False]))
    assert measure_pairs(one, both, Options()) is None
    assert measure_pairs(both, one, Options()) is None


def test_pair_list_split_is_stratified():
    rng = np.random.default_rng(0)
    same = rng.random(101) < 0.3
    first, second = split_pair_list(rng.random(101), same, seed=0)
    assert sorted([*first.anchors, *second.anchors]) == list(range(101))
    assert abs(int(first.same.sum()) - int(second.same.sum())) <= 1
    again, _ = split_pair_list(rng.random(101), same, seed=1)
    assert sorted(again.anchors) != sorted(first.anchors)


def test_intervals_have_nominal_coverage():
    rng = np.random.default_rng(0)
    covered = 0
    for number in range(200):
        low, high = mean_interval((rng.random(60) < 0.7).astype(float), resamples=200, seed=number)
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_missing_package_is_reported_with_extra():
    with pytest.raises(ExtraMissing, match=r"no_such_package is not installed: pip install '\.\[train\]'"):
        import_extra("no_such_package.inside")
    with pytest.raises(ExtraMissing, match=r"the report needs no_such, nor_this: pip install '\.\[train\]'"):
        require_packages(("numpy", "no_such", "nor_this"), "the report")


def test_weights_count_as_repetitions():
    rng = np.random.default_rng(5)
    same = rng.random(300) < 0.4
    cosines = np.round(rng.normal(same * 0.5, 0.3), 2)  # rounded, so that there are ties
    stated = rng.random(300)
    pairs = WeightedPairs(cosines, same, 0.7, stated)
    plain = {
        **decision_metrics(cosines, same, 0.7),
        **roc_metrics(cosines, same),
        **cosine_gap(cosines, same),
        "expected_calibration_error": expected_calibration_error(stated, same),
    }
    assert pairs.metrics(np.ones(300, np.int64)) == pytest.approx(plain)
    counts = rng.integers(0, 4, 300)
    many = [np.repeat(each, counts) for each in (cosines, same, stated)]
    repeated = WeightedPairs(many[0], many[1], 0.7, many[2]).metrics(np.ones(len(many[0]), np.int64))
    assert pairs.metrics(counts) == pytest.approx(repeated)
    assert "roc_auc" not in pairs.metrics(same.astype(np.int64))  # no negative pair was drawn
