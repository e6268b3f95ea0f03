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

PRIOR_ROWS = 16
"""Rows that a typical background counts for beside the sample: they steady small collections and equal images."""
MAX_COUNT = 2_000
"""Number of items from which on more of them change nothing: the largest that calibrations were checked with."""
TOP = 0.99
"""The background's upper quantile: how high the collection's nearest items score for the query."""


@dataclass(frozen=True, slots=True)
class MatchCalibration:
    """A logistic model of whether a result matches its query.

    The background is the query's scores against a sample of the collection. Its median and its upper quantile are mixed
    with typical ones, which count for `PRIOR_ROWS` rows, so that both are defined for one row or none.

    Attributes:
        intercept: of the log-odds.
        score: weight of the cosine, at least 0.
        log_count: weight of ln(count), at most 0: the best of many wrong items has a higher score than that of few.
        median: weight of the background's median.
        top: weight of the background's upper quantile, `TOP`.
        typical_median: median of a typical query, in [-1, 1].
        typical_top: its upper quantile, in [-1, 1].

    Raises:
        ValueError: a value is outside these ranges or not finite.
    """

    intercept: float
    score: float
    log_count: float = 0.0
    median: float = 0.0
    top: float = 0.0
    typical_median: float = 0.0
    typical_top: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}; it must be finite")
        if self.score < 0:
            raise ValueError(f"score is {self.score}; a probability must not fall with the score")
        if self.log_count > 0:
            raise ValueError(f"log_count is {self.log_count}; a probability must not rise with the number of items")
        if max(abs(self.typical_median), abs(self.typical_top)) > 1:
            raise ValueError(
                f"typical_median is {self.typical_median} and typical_top {self.typical_top}; they must be in [-1, 1]"
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
        median, top = background_quantiles(background, self.typical_median, self.typical_top)
        constant = (
            self.intercept
            + self.median * median
            + self.top * top
            + self.log_count * math.log(min(max(count, 1), MAX_COUNT))
        )
        log_odds = np.clip(self.score * np.asarray(scores, np.float64) + constant, -500.0, 500.0)
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


def background_quantiles(background: ArrayLike, typical_median: float, typical_top: float) -> tuple[float, float]:
    """Return the median and the upper quantile of (m,) scores, mixed with typical ones of weight `PRIOR_ROWS`.

    >>> background_quantiles([], 0.1, 0.2)
    (0.1, 0.2)
    """
    rows = np.asarray(background)
    if rows.size == 0:
        return typical_median, typical_top
    middle, upper = (rows.size - 1) // 2, round(TOP * (rows.size - 1))
    ordered = np.partition(rows, (middle, upper))
    share = rows.size / (rows.size + PRIOR_ROWS)
    median, top = float(ordered[middle]), float(ordered[upper])
    return share * median + (1 - share) * typical_median, share * top + (1 - share) * typical_top
