"""Probability of search results: fitted on one half of the data, measured on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.calibrate import expected_calibration_error
from evaluation.embedded_set import EmbeddedSet
from evaluation.extras import import_extra
from evaluation.options import Options
from evaluation.search_trials import Trial, image_trials, text_trials
from lookalike.match_calibration import MatchCalibration, background_quantiles
from lookalike.types import Bool, Float64

MATCH = 0.5
"""Probability from which a result counts as a match."""
_WEIGHTS = {"caption": 1.0, "foreign": 1.0, "label": 0.7, "nonsense": 0.5}
_MIN_TRIALS = 50
_REGULARIZATION = 1e4  # scikit-learn's C, for standardized evidence and weights that sum to the number of trials


@dataclass(frozen=True, slots=True)
class SearchEvaluation:
    """The result for one kind of query.

    Attributes:
        metrics: see docs/reference/evaluation-measures.md.
        calibration: fitted on the first half.
    """

    metrics: dict[str, float]
    calibration: MatchCalibration


def measure_text_search(data: EmbeddedSet, options: Options) -> SearchEvaluation | None:
    """Fit and measure the probability of text queries; None where the data does not tell matches from others."""
    return _measure(*(text_trials(data, half, options) for half in (0, 1)))


def measure_image_search(data: EmbeddedSet, options: Options) -> SearchEvaluation | None:
    """Fit and measure the probability of image queries; None where the data does not tell matches from others."""
    return _measure(*(image_trials(data, half, options) for half in (0, 1)))


def _measure(validation: Sequence[Trial], test: Sequence[Trial]) -> SearchEvaluation | None:
    calibration = fit_matches(validation)
    if calibration is None:
        return None
    return SearchEvaluation(search_metrics(calibration, test) | {"validation_queries": len(validation)}, calibration)


def fit_matches(trials: Sequence[Trial]) -> MatchCalibration | None:
    """Fit the probability that the first result matches; None for too few trials.

    Wrong results of nonsense alone would make everything else look right: labels or foreign captions are needed.
    """
    right = np.array([trial.right for trial in trials], bool)
    wrong = sum(not trial.right and trial.kind != "nonsense" for trial in trials)
    if right.sum() < _MIN_TRIALS or wrong < _MIN_TRIALS:
        return None
    quantiles = np.array([background_quantiles(trial.background, 0.0, 0.0) for trial in trials])
    typical_median, typical_top = (float(value) for value in np.median(quantiles, axis=0))
    evidence = _evidence(trials, typical_median, typical_top)
    weights = _weights(trials)
    mean = np.average(evidence, axis=0, weights=weights)
    scale = np.maximum(np.sqrt(np.average((evidence - mean) ** 2, axis=0, weights=weights)), 1e-6)
    model = import_extra("sklearn.linear_model").LogisticRegression(C=_REGULARIZATION, max_iter=1000)
    model.fit((evidence - mean) / scale, right, sample_weight=weights)
    slopes = model.coef_[0] / scale
    score, log_count, median, top = (float(value) for value in slopes)
    intercept = float(model.intercept_[0] - slopes @ mean)
    if score < 0 or log_count > 0:  # the data suggests what can't be: keep the overall share of right results
        intercept += min(score, 0.0) * float(mean[0]) + max(log_count, 0.0) * float(mean[1])
    return MatchCalibration(
        intercept=round(intercept, 4),
        score=round(max(score, 0.0), 4),
        log_count=round(min(log_count, 0.0), 4),
        median=round(median, 4),
        top=round(top, 4),
        typical_median=round(typical_median, 4),
        typical_top=round(typical_top, 4),
    )


def search_metrics(calibration: MatchCalibration, trials: Sequence[Trial]) -> dict[str, float]:
    """Measure the probability of first results; a measure whose trials are missing is left out."""
    predicted = np.array([_probability(calibration, trial) for trial in trials])
    right = np.array([trial.right for trial in trials], bool)
    kinds = np.array([trial.kind for trial in trials])
    found, label = predicted >= MATCH, kinds == "label"
    metrics: dict[str, float] = {}
    if (kinds == "caption").any() and (kinds == "foreign").any():
        hits, alarms = found[kinds == "caption"].mean(), found[kinds == "foreign"].mean()
        metrics |= {"captions_found": float(hits), "foreign_rejected": float(1 - alarms)}
        metrics["captions_balanced_accuracy"] = float((hits + 1 - alarms) / 2)
    if right[label].any() and not right[label].all():
        metrics["labels_balanced_accuracy"] = _balanced_accuracy(found[label], right[label])
        metrics["labels_expected_calibration_error"] = expected_calibration_error(predicted[label], right[label])
        metrics["labels_right"] = float(right[label].mean())
    if (kinds == "nonsense").any():
        metrics["nonsense_rejected"] = float(1 - found[kinds == "nonsense"].mean())
    return metrics | {"test_queries": len(trials)}


def _balanced_accuracy(found: Bool, right: Bool) -> float:
    return float((found[right].mean() + 1 - found[~right].mean()) / 2)


def _probability(calibration: MatchCalibration, trial: Trial) -> float:
    return float(calibration.probabilities([trial.score], trial.background, trial.count)[0])


def _evidence(trials: Sequence[Trial], typical_median: float, typical_top: float) -> Float64:
    """Return (t, 4): score, ln(count), median and upper quantile of the background."""
    rows = [
        (trial.score, np.log(trial.count), *background_quantiles(trial.background, typical_median, typical_top))
        for trial in trials
    ]
    return np.array(rows, np.float64)


def _weights(trials: Sequence[Trial]) -> Float64:
    kinds = [trial.kind for trial in trials]
    weights = np.array([_WEIGHTS[kind] / kinds.count(kind) for kind in kinds])
    scaled: Float64 = weights * len(kinds) / weights.sum()
    return scaled
