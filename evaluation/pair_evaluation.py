"""Evaluation of pairs: threshold and probability curve from validation pairs, metrics from test pairs.

No image is in both a validation and a test pair, so the metrics hold for images that the threshold was not fitted on. A
list of pairs is split without regard to images.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from evaluation.calibrate import expected_calibration_error, fit, probabilities_of
from evaluation.classes import encode_labels
from evaluation.embedded_set import EmbeddedSet
from evaluation.intervals import bootstrap_counts, percentile_interval
from evaluation.options import Options
from evaluation.pairs import (
    Pairs,
    cosine_gap,
    decision_metrics,
    pairs_by_label,
    pairs_by_search,
    roc_metrics,
)
from evaluation.weighted_pairs import WeightedPairs
from lookalike.calibration import PairCalibration
from lookalike.types import Bool, Float64, Int64


@dataclass(frozen=True, slots=True)
class PairSample:
    """Pairs with their cosines.

    Attributes:
        cosines: (p,).
        same: (p,).
        anchors: (p,) the pairs' anchors; the bootstrap draws pairs of one anchor together.
    """

    cosines: Float64
    same: Bool
    anchors: Int64

    def has_both_kinds(self) -> bool:
        """Return whether there are positive and negative pairs."""
        return bool(self.same.any() and not self.same.all())


@dataclass(frozen=True, slots=True)
class PairEvaluation:
    """The result for one kind of pair.

    Attributes:
        metrics: threshold, accuracy, precision, recall, f1, roc_auc, equal_error_rate, expected_calibration_error,
            positive_cosine, negative_cosine, cosine_gap, and the number of pairs.
        intervals: of each metric except threshold and counts.
        calibration: fitted on the validation pairs.
        test: the test pairs.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    calibration: PairCalibration
    test: PairSample


def measure_pairs(validation: PairSample, test: PairSample, options: Options) -> PairEvaluation | None:
    """Fit on the first sample and measure on the second; None if either lacks positive or negative pairs."""
    if not (validation.has_both_kinds() and test.has_both_kinds()):
        return None
    calibration = fit(validation.cosines, validation.same, options.calibration)
    metrics = {
        "threshold": calibration.threshold,
        **decision_metrics(test.cosines, test.same, calibration.threshold),
        **roc_metrics(test.cosines, test.same),
        "expected_calibration_error": expected_calibration_error(
            probabilities_of(calibration, test.cosines), test.same
        ),
        **cosine_gap(test.cosines, test.same),
        "validation_pairs": len(validation.same),
        "test_pairs": len(test.same),
    }
    return PairEvaluation(metrics, _intervals(test, calibration, options), calibration, test)


def label_pairs(data: EmbeddedSet, groups: Int64, options: Options) -> tuple[PairSample, PairSample]:
    """Draw validation and test pairs of images, from halves of the labelled images.

    Args:
        data: the images.
        groups: (n,) the group of each, see `pairs_by_label`.
        options: of the evaluation.
    """
    rng = np.random.default_rng([options.seed, 1])
    labels = encode_labels((example.label for example in data.examples), data.classes)
    samples = []
    for half in _split_in_half(np.flatnonzero(labels >= 0), rng):
        pairs = _subsample_anchors(pairs_by_label(labels[half], groups[half], rng), options.pairs // 2, rng)
        samples.append(PairSample(pairs.cosines(data.vectors[half], data.vectors[half]), pairs.same, pairs.left))
    return samples[0], samples[1]


def view_pairs(data: EmbeddedSet, views: EmbeddedSet, groups: Int64, options: Options) -> tuple[PairSample, PairSample]:
    """Search one view of each image among the other views of validation and test images; pair the hits.

    Args:
        data: n images.
        views: of `two_views` of them.
        groups: (n,) the group of each image, see `pairs_by_search`.
        options: of the evaluation.
    """
    rng = np.random.default_rng([options.seed, 1])
    rows = {example.key: row for row, example in enumerate(data.examples)}
    labels = [example.label for example in views.examples]
    first = np.flatnonzero([a == b for a, b in pairwise(labels)])
    images = np.array([rows[str(labels[i])] for i in first], np.int64)
    candidates = _possible_negatives(data)
    samples = []
    for half in _split_in_half(np.arange(len(first)), rng):
        owners = rng.permutation(len(half))[: options.pairs // 4]
        sides = views.vectors[first[half[owners]]], views.vectors[first[half] + 1]
        pairs = pairs_by_search(*sides, owners, groups[images[half]], candidates[images[half]])
        samples.append(PairSample(pairs.cosines(*sides), pairs.same, pairs.left))
    return samples[0], samples[1]


def caption_pairs(data: EmbeddedSet, groups: Int64, options: Options) -> tuple[PairSample, PairSample]:
    """Search one caption of each image among validation and test images, halves of the captioned ones; pair the hits.

    Args:
        data: the images and captions.
        groups: (n,) the group of each image, see `pairs_by_search`.
        options: of the evaluation.

    Raises:
        TextUnsupported: the encoder has no text tower here.
    """
    rng = np.random.default_rng([options.seed, 2])
    candidates = _possible_negatives(data)
    sizes = np.bincount(data.owners)
    samples = []
    for half in _split_in_half(np.arange(len(data.captioned)), rng):
        images = data.captioned[half]
        owners = rng.permutation(len(half))[: options.pairs // 4]
        texts = np.searchsorted(data.owners, half[owners]) + rng.integers(0, sizes[half[owners]])
        sides = data.caption_vectors[texts], data.vectors[images]
        pairs = pairs_by_search(*sides, owners, groups[images], candidates[images])
        samples.append(PairSample(pairs.cosines(*sides), pairs.same, pairs.left))
    return samples[0], samples[1]


def split_pair_list(cosines: Float64, same: Bool, seed: int) -> tuple[PairSample, PairSample]:
    """Split a list of pairs into random halves, stratified by kind."""
    order = np.random.default_rng([seed, 3]).permutation(len(same))
    order = order[np.argsort(same[order], kind="stable")]
    halves = [PairSample(cosines[rows], same[rows], rows) for rows in (order[::2], order[1::2])]
    return halves[0], halves[1]


def _possible_negatives(data: EmbeddedSet) -> Bool:
    """Return which images may be wrong results: those with a label, as captions don't name all that an image shows.

    Without classes they are all images.
    """
    return np.array([len(data.classes) < 2 or example.label is not None for example in data.examples])


def _split_in_half(items: Int64, rng: np.random.Generator) -> tuple[Int64, Int64]:
    shuffled = rng.permutation(items)
    return np.sort(shuffled[: len(shuffled) // 2]), np.sort(shuffled[len(shuffled) // 2 :])


def _subsample_anchors(pairs: Pairs, count: int, rng: np.random.Generator) -> Pairs:
    """Draw `count` of the pairs: both pairs of `count` / 2 anchors."""
    anchors = np.unique(pairs.left)
    if 2 * len(anchors) <= count:
        return pairs
    kept = np.isin(pairs.left, rng.permutation(anchors)[: count // 2])
    return Pairs(pairs.left[kept], pairs.right[kept], pairs.same[kept])


def _intervals(test: PairSample, calibration: PairCalibration, options: Options) -> dict[str, tuple[float, float]]:
    """Bootstrap the interval of each metric: anchors are resampled, each with its pairs."""
    if options.resamples == 0:
        return {}
    anchors, anchor_of = np.unique(test.anchors, return_inverse=True)
    predicted = probabilities_of(calibration, test.cosines)
    pairs = WeightedPairs(test.cosines, test.same, calibration.threshold, predicted)
    resampled = [
        pairs.metrics(counts[anchor_of]) for counts in bootstrap_counts(len(anchors), options.resamples, options.seed)
    ]
    names = max(resampled, key=len)
    return {name: percentile_interval([metrics.get(name, np.nan) for metrics in resampled]) for name in names}
