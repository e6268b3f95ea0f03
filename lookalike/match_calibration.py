"""Probability that a result of a search truly matches its query, from its score and the collection's other scores.

`evaluation` fits it; it is stored with the calibration of pairs. Dimension letters: k results, m rows of the
collection's sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MATCH = 0.5
"""Probability from which a result counts as a match."""
PRIOR_ROWS = 16
"""Rows that a typical background counts for beside the sample: they steady small collections and equal images."""
MAX_COUNT = 2_000
"""Number of items from which on more of them change nothing: the largest that calibrations were checked with."""


@dataclass(frozen=True, slots=True)
class MatchCalibration:
    """A logistic model of whether a result matches its query.

    The background is the query's scores against a sample of the collection. Its mean and spread are mixed with typical
    ones, which count for `PRIOR_ROWS` rows, so that both are defined for one row or none.

    Attributes:
        intercept: of the log-odds.
        score: weight of the cosine, at least 0.
        standard_score: weight of (cosine - mean) / spread, at least 0.
        log_count: weight of ln(count), at most 0: the best of many wrong items has a higher score than that of few.
        spread: weight of the background's spread (standard deviation).
        typical_mean: background's mean of a typical query, in [-1, 1].
        typical_spread: its spread, in (0, 1].

    Raises:
        ValueError: a value is outside these ranges or not finite.
    """

    intercept: float
    score: float
    standard_score: float = 0.0
    log_count: float = 0.0
    spread: float = 0.0
    typical_mean: float = 0.0
    typical_spread: float = 0.1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}; it must be finite")
        for name in ("score", "standard_score"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a probability must not fall with the score")
        if self.log_count > 0:
            raise ValueError(f"log_count is {self.log_count}; a probability must not rise with the number of items")
        if not (-1 <= self.typical_mean <= 1 and 0 < self.typical_spread <= 1):
            raise ValueError(
                f"typical_mean is {self.typical_mean} and typical_spread {self.typical_spread}; "
                "they must be in [-1, 1] and in (0, 1]"
            )

    def probabilities(self, scores: ArrayLike, background: ArrayLike, count: int) -> NDArray[np.float64]:
        """Return the probability that each result matches the query.

        Args:
            scores: (k,) cosines of results.
            background: (m,) cosines of the same query with a sample of the collection's rows; may be empty.
            count: number of items that were searched, those that pass the filter.

        Returns:
            (k,) float64 in [0, 1], non-decreasing in the score.
        """
        mean, spread = background_moments(background, self.typical_mean, self.typical_spread)
        slope = self.score + self.standard_score / spread
        constant = self.intercept - self.standard_score * mean / spread + self.spread * spread
        constant += self.log_count * math.log(min(max(count, 1), MAX_COUNT))
        log_odds = np.clip(slope * np.asarray(scores, np.float64) + constant, -500.0, 500.0)
        probabilities: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-log_odds))
        return probabilities

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MatchCalibration:
        """Return the calibration with the values of `dataclasses.asdict`.

        Raises:
            ValueError: a value is missing, unknown or out of range.
        """
        names = [each.name for each in fields(cls)]
        if set(values) != set(names):
            wrong = ", ".join(sorted(set(values) ^ set(names)))
            raise ValueError(f"missing or unknown weight of a search calibration: {wrong[:200]}")
        return cls(**{name: float(values[name]) for name in names})


def background_moments(background: ArrayLike, typical_mean: float, typical_spread: float) -> tuple[float, float]:
    """Return the mean and the standard deviation of (m,) scores, mixed with typical ones of weight `PRIOR_ROWS`.

    >>> background_moments([], 0.1, 0.2)
    (0.1, 0.2)
    """
    rows = np.asarray(background, np.float64)
    total = rows.size + PRIOR_ROWS
    mean = (float(rows.sum()) + PRIOR_ROWS * typical_mean) / total
    deviations = rows - mean
    squares = float(deviations @ deviations) + PRIOR_ROWS * (typical_spread**2 + (typical_mean - mean) ** 2)
    return mean, math.sqrt(squares / total)
