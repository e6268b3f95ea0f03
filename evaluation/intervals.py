"""Bootstrap confidence intervals: the variation of a metric with other queries of the same kind.

Efron's percentile bootstrap: the queries are resampled with replacement, and the metric is computed each time. The
gallery is not resampled.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lookalike.types import Float64, Int64

LEVEL = 0.95
Interval = tuple[float, float]


def mean_interval(values: Float64, *, resamples: int = 1000, seed: int = 0, level: float = LEVEL) -> Interval:
    """Return the interval of the mean of (q,) values, one a query.

    >>> low, high = mean_interval(np.array([0.0, 1.0] * 200))
    >>> 0.44 < low < 0.46, 0.54 < high < 0.56
    (True, True)
    """
    means = [float(counts @ values) / len(values) for counts in bootstrap_counts(len(values), resamples, seed)]
    return percentile_interval(means, level)


def bootstrap_counts(count: int, resamples: int, seed: int) -> Iterator[Int64]:
    """Yield `resamples` times (count,) int64 that sum to `count`: how often each query was drawn."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(count, size=count), minlength=count)


def percentile_interval(values: list[float], level: float = LEVEL) -> Interval:
    """Return the middle `level` of the values, by percentiles.

    >>> percentile_interval([float(i) for i in range(101)], level=0.5)
    (25.0, 75.0)
    """
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
