"""Calibration of pairs' probabilities on validation pairs, and its error on other pairs.

Isotonic regression (Zadrozny and Elkan 2002) fits any curve that never falls; Platt scaling (1999) fits a sigmoid, for
few pairs. Both come from scikit-learn.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from evaluation.extras import import_extra
from evaluation.pairs import best_threshold
from lookalike.calibration import PairCalibration
from lookalike.types import Bool, Float64

Method = Literal["isotonic", "platt"]
BINS = 15
_KNOT_DECIMALS = 4  # of the curve's knots: finer than float16 vectors resolve
_PLATT_KNOTS = 41


def fit(cosines: Float64, same: Bool, method: Method = "isotonic") -> PairCalibration:
    """Fit the threshold of the best F1 and the probability curve.

    Args:
        cosines: (p,) of the validation pairs.
        same: (p,), both kinds; as many of each for the probabilities that `PairCalibration` describes.
        method: of the curve.

    Raises:
        ValueError: there is only one kind of pair.
        ExtraMissing: scikit-learn is not installed.
    """
    if same.all() or not same.any():
        raise ValueError("a calibration needs positive and negative pairs")
    knots, values = (_isotonic if method == "isotonic" else _platt)(cosines, same)
    knots, first = np.unique(np.round(knots, _KNOT_DECIMALS), return_index=True)
    values = np.maximum.accumulate(np.round(values[first], _KNOT_DECIMALS))
    threshold = round(best_threshold(cosines, same), 6)
    return PairCalibration(threshold, tuple(knots.tolist()), tuple(np.clip(values, 0, 1).tolist()))


def expected_calibration_error(probabilities: Float64, same: Bool, bins: int = BINS) -> float:
    """Compute ECE = sum over bins of |B| / p x |share of positives in B - mean probability in B| (Naeini et al. 2015).

    Args:
        probabilities: (p,) in [0, 1].
        same: (p,), the truth.
        bins: of equal width over [0, 1].

    >>> expected_calibration_error(np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, True, False, True]))
    0.25
    """
    bin_of = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, weights=same - probabilities, minlength=bins)
    return float(np.abs(gaps).sum() / len(same))


def probabilities_of(calibration: PairCalibration, cosines: Float64) -> Float64:
    """Return the (p,) probabilities of (p,) cosines."""
    return np.interp(cosines, calibration.cosines, calibration.probabilities)


def _isotonic(cosines: Float64, same: Bool) -> tuple[Float64, Float64]:
    model = import_extra("sklearn.isotonic").IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    model.fit(cosines, same.astype(np.float64))
    return model.X_thresholds_, model.y_thresholds_


def _platt(cosines: Float64, same: Bool) -> tuple[Float64, Float64]:
    model = import_extra("sklearn.linear_model").LogisticRegression(C=1e6)  # practically no regularisation: one feature
    model.fit(cosines[:, None], same)
    knots = np.linspace(cosines.min(), cosines.max(), _PLATT_KNOTS)
    slope = max(float(model.coef_[0, 0]), 0.0)  # the curve must not fall, even if the pairs suggest it
    return knots, import_extra("scipy.special").expit(slope * knots + float(model.intercept_[0]))
