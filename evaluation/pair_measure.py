"""Embedded examples, or a list of pairs -> threshold and curve from validation pairs, figures from test pairs.

No image is in a validation pair and in a test pair at once, so the figures hold for images the threshold never met;
only a list of pairs is halved as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.calibrate import expected_calibration_error, fit, probabilities_of
from evaluation.classes import encode_labels
from evaluation.embedded import EmbeddedSet
from evaluation.intervals import draws, interval_of
from evaluation.labels import Float64
from evaluation.options import Options
from evaluation.pairs import (
    Pairs,
    cosine_gap,
    decision_figures,
    pairs_by_caption,
    pairs_by_label,
    roc_figures,
)
from evaluation.weighted_pairs import WeightedPairs
from lookalike.calibration import PairCalibration
from lookalike.types import Bool, Int64


@dataclass(frozen=True, slots=True)
class PairSample:
    """Pairs with their cosines.

    Attributes:
        cosines: (p,).
        same: (p,).
        anchors: (p,) which pairs share their anchor: they are drawn together by the bootstrap.
    """

    cosines: Float64
    same: Bool
    anchors: Int64

    def has_both(self) -> bool:
        """Whether there are positive and negative pairs."""
        return bool(self.same.any() and not self.same.all())


@dataclass(frozen=True, slots=True)
class PairMeasure:
    """What was found.

    Attributes:
        figures: threshold, accuracy, precision, recall, f1, roc_auc, equal_error_rate, expected_calibration_error,
            positive_cosine, negative_cosine, cosine_gap, and the number of pairs.
        intervals: of each figure but threshold and counts.
        calibration: fitted on the validation pairs.
        test: the test pairs.
    """

    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    calibration: PairCalibration
    test: PairSample


def measure_pairs(validation: PairSample, test: PairSample, options: Options) -> PairMeasure | None:
    """Threshold and curve from the first, figures from the second; None where either lacks one kind of pair."""
    if not (validation.has_both() and test.has_both()):
        return None
    calibration = fit(validation.cosines, validation.same, options.calibration)
    figures = {
        "threshold": calibration.threshold,
        **decision_figures(test.cosines, test.same, calibration.threshold),
        **roc_figures(test.cosines, test.same),
        "expected_calibration_error": expected_calibration_error(
            probabilities_of(calibration, test.cosines), test.same
        ),
        **cosine_gap(test.cosines, test.same),
        "validation_pairs": len(validation.same),
        "test_pairs": len(test.same),
    }
    return PairMeasure(figures, _intervals(test, calibration, options), calibration, test)


def label_pairs(data: EmbeddedSet, options: Options, *, whole_classes: bool = False) -> tuple[PairSample, PairSample]:
    """Validation and test pairs of images, from halves of the labelled ones, or of the classes."""
    rng = np.random.default_rng([options.seed, 1])
    labels = encode_labels((example.label for example in data.examples), data.classes)
    samples = []
    if whole_classes:
        halves = [np.flatnonzero(np.isin(labels, half)) for half in _halves(np.arange(len(data.classes)), rng)]
    else:
        halves = list(_halves(np.flatnonzero(labels >= 0), rng))
    for half in halves:
        pairs = _at_most(pairs_by_label(labels[half], rng), options.pairs // 2, rng)
        samples.append(PairSample(pairs.cosines(data.vectors[half], data.vectors[half]), pairs.same, pairs.left))
    return samples[0], samples[1]


def caption_pairs(data: EmbeddedSet, options: Options) -> tuple[PairSample, PairSample]:
    """Validation and test pairs of an image and a caption, from halves of the captioned images.

    Raises:
        TextUnsupported: the encoder has no text tower here.
    """
    rng = np.random.default_rng([options.seed, 2])
    samples = []
    for half in _halves(np.arange(len(data.captioned)), rng):
        texts = np.flatnonzero(np.isin(data.owners, half))
        pairs = _at_most(pairs_by_caption(np.searchsorted(half, data.owners[texts]), rng), options.pairs // 2, rng)
        cosines = pairs.cosines(data.vectors[data.captioned[half]], data.caption_vectors[texts])
        samples.append(PairSample(cosines, pairs.same, pairs.left))
    return samples[0], samples[1]


def listed_pairs(cosines: Float64, same: Bool, seed: int) -> tuple[PairSample, PairSample]:
    """A list of pairs, shuffled and halved, each half with its share of positives."""
    order = np.random.default_rng([seed, 3]).permutation(len(same))
    order = order[np.argsort(same[order], kind="stable")]
    halves = [PairSample(cosines[rows], same[rows], rows) for rows in (order[::2], order[1::2])]
    return halves[0], halves[1]


def _halves(items: Int64, rng: np.random.Generator) -> tuple[Int64, Int64]:
    mixed = rng.permutation(items)
    return np.sort(mixed[: len(mixed) // 2]), np.sort(mixed[len(mixed) // 2 :])


def _at_most(pairs: Pairs, count: int, rng: np.random.Generator) -> Pairs:
    """`count` of the pairs: both pairs of as many anchors."""
    anchors = np.unique(pairs.left)
    if 2 * len(anchors) <= count:
        return pairs
    kept = np.isin(pairs.left, rng.permutation(anchors)[: count // 2])
    return Pairs(pairs.left[kept], pairs.right[kept], pairs.same[kept])


def _intervals(test: PairSample, calibration: PairCalibration, options: Options) -> dict[str, tuple[float, float]]:
    """Of every figure: anchors are drawn anew, each with its pairs."""
    if options.resamples == 0:
        return {}
    anchors, place = np.unique(test.anchors, return_inverse=True)
    stated = probabilities_of(calibration, test.cosines)
    pairs = WeightedPairs(test.cosines, test.same, calibration.threshold, stated)
    drawn = [pairs.figures(counts[place]) for counts in draws(len(anchors), options.resamples, options.seed)]
    names = max(drawn, key=len)
    return {name: interval_of([figures.get(name, np.nan) for figures in drawn]) for name in names}
