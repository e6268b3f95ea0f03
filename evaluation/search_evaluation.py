"""Probability of search results: fitted on each half of the data, measured on the other, and fitted on both to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.calibrate import expected_calibration_error
from evaluation.embedded_set import EmbeddedSet
from evaluation.extras import import_extra
from evaluation.options import Options
from evaluation.search_trials import Trial, image_trials, text_trials
from lookalike.match_calibration import MATCH, MAX_COUNT, MatchCalibration, background_moments
from lookalike.types import Bool, Float64

_WEIGHTS = {"caption": 1.0, "foreign": 0.4, "label": 1.35, "nonsense": 0.25}
"""Of each kind of trial. Labels alone have wrong results that are near right ones."""
_SIGNS = np.array([1, 1, -1, 0])
"""Of the weights of the evidence: a probability must not fall with the score, nor rise with the number of items."""
_MIN_TRIALS = 50
_REGULARIZATION = 1e4  # scikit-learn's C, for standardized evidence and weights that sum to the number of trials


@dataclass(frozen=True, slots=True)
class SearchEvaluation:
    """The result for one kind of query.

    Attributes:
        metrics: see docs/reference/evaluation-measures.md.
        calibration: fitted on both halves.
    """

    metrics: dict[str, float]
    calibration: MatchCalibration


def measure_text_search(data: EmbeddedSet, options: Options) -> SearchEvaluation | None:
    """Fit and measure the probability of text queries; None where the data does not tell matches from others."""
    return _measure(*(text_trials(data, half, options) for half in (0, 1)))


def measure_image_search(data: EmbeddedSet, options: Options) -> SearchEvaluation | None:
    """Fit and measure the probability of image queries; None where the data does not tell matches from others."""
    return _measure(*(image_trials(data, half, options) for half in (0, 1)))


def _measure(*halves: Sequence[Trial]) -> SearchEvaluation | None:
    """Measure each half by the fit of the other."""
    fitted = [fit_matches(half) for half in halves]
    calibration = fit_matches([trial for half in halves for trial in half])
    if calibration is None or None in fitted:
        return None
    predicted = [_predict(other, half) for other, half in zip(reversed(fitted), halves, strict=True) if other]
    trials = [trial for half in halves for trial in half]
    return SearchEvaluation(search_metrics(np.concatenate(predicted), trials), calibration)


def fit_matches(trials: Sequence[Trial]) -> MatchCalibration | None:
    """Fit the probability that the first result matches; None for too few trials.

    Wrong results of nonsense alone would make everything else look right: labels or foreign captions are needed.
    """
    right = np.array([trial.right for trial in trials], bool)
    wrong = sum(not trial.right and trial.kind != "nonsense" for trial in trials)
    if right.sum() < _MIN_TRIALS or wrong < _MIN_TRIALS:
        return None
    moments = np.array([background_moments(trial.background, 0.0, 0.1) for trial in trials])
    typical_mean, typical_spread = (round(float(value), 4) for value in np.median(moments, axis=0))
    evidence = np.array([_evidence(trial, typical_mean, typical_spread) for trial in trials])
    intercept, score, standard_score, log_count, spread = _fit(evidence, right, _weights(trials))
    return MatchCalibration(intercept, score, standard_score, log_count, spread, typical_mean, typical_spread)


def _fit(evidence: Float64, right: Bool, weights: Float64) -> list[float]:
    """Return the intercept and the weights of the (t, 4) evidence; one of the wrong sign is left out."""
    mean = np.average(evidence, axis=0, weights=weights)
    scale = np.maximum(np.sqrt(np.average((evidence - mean) ** 2, axis=0, weights=weights)), 1e-6)
    standardized, used = (evidence - mean) / scale, np.ones(evidence.shape[1], bool)
    while True:
        model = import_extra("sklearn.linear_model").LogisticRegression(C=_REGULARIZATION, max_iter=1000)
        model.fit(standardized * used, right, sample_weight=weights)
        slopes = used * model.coef_[0] / scale
        wrong = slopes * _SIGNS < 0
        if not wrong.any():
            return [round(float(value), 4) for value in (model.intercept_[0] - slopes @ mean, *slopes)]
        used &= ~wrong


def search_metrics(predicted: Float64, trials: Sequence[Trial]) -> dict[str, float]:
    """Measure the probabilities (t,) of first results; a measure whose trials are missing is left out."""
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
    return metrics | {"queries": len(trials)}


def _balanced_accuracy(found: Bool, right: Bool) -> float:
    return float((found[right].mean() + 1 - found[~right].mean()) / 2)


def _predict(calibration: MatchCalibration, trials: Sequence[Trial]) -> Float64:
    return np.array([calibration.probabilities([each.score], each.background, each.count)[0] for each in trials])


def _evidence(trial: Trial, typical_mean: float, typical_spread: float) -> list[float]:
    """Return the score, the standard score, ln(count), and the background's spread."""
    mean, spread = background_moments(trial.background, typical_mean, typical_spread)
    return [trial.score, (trial.score - mean) / spread, float(np.log(min(trial.count, MAX_COUNT))), spread]


def _weights(trials: Sequence[Trial]) -> Float64:
    kinds = [trial.kind for trial in trials]
    weights = np.array([_WEIGHTS[kind] / kinds.count(kind) for kind in kinds])
    scaled: Float64 = weights * len(kinds) / weights.sum()
    return scaled
