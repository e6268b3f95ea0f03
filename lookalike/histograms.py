"""Edges of histograms: round numbers, and starts of days, weeks, months or years.

A bin is from its edge, included, to the next one, excluded: a filter's range of `gte` and `lt`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

HISTOGRAM_TYPES = frozenset({"integer", "number", "duration", "date", "datetime"})

_DIGITS = 120
"""Precision of the arithmetic; the largest decimals have 76 digits."""
_DAY = 86_400
_SECONDS = (1, 5, 15, 30, 60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, _DAY, 7 * _DAY)
_MONTHS = (1, 3, *(12 * years * power for power in (1, 10, 100, 1_000) for years in (1, 2, 5)), 120_000)
_FIRST_DAY = datetime(1, 1, 1)
"""The first day of the calendar, a Monday, from which days and weeks are counted."""


def bin_edges(low: Any, high: Any, bins: int) -> list[Any]:
    """Return the b + 1 edges of at most `bins` bins that hold all values from `low` to `high`.

    Args:
        low: the smallest value: a finite number, a decimal, a duration, a date or a time stamp.
        high: the largest value, of the same type.
        bins: maximum number of bins, at least 2.

    Returns:
        Ascending values of the same type; of durations, numbers of seconds; of time stamps with an offset, in UTC.

    >>> bin_edges(312, 741, 5)
    [300, 400, 500, 600, 700, 800]
    >>> bin_edges(0.5, 0.5, 5)
    [0.5, 0.6]
    >>> [day.isoformat() for day in bin_edges(date(2025, 11, 30), date(2026, 1, 15), 5)]
    ['2025-11-01', '2025-12-01', '2026-01-01', '2026-02-01']
    """
    if isinstance(low, datetime):
        return _time_edges(low, high, bins)
    if isinstance(low, date):
        midnight = datetime.min.time()
        edges = _time_edges(datetime.combine(low, midnight), datetime.combine(high, midnight), bins, _DAY)
        return [edge.date() for edge in edges]
    if isinstance(low, timedelta):
        low, high = low.total_seconds(), high.total_seconds()
    return _number_edges(low, high, bins)


def _number_edges(low: Any, high: Any, bins: int) -> list[Any]:
    """Return multiples of a step of 1, 2 or 5 times a power of ten."""
    with localcontext(prec=_DIGITS):
        first, last = (Decimal(repr(value)) if isinstance(value, float) else Decimal(value) for value in (low, high))
        step = next(
            step for step in _steps(first, last, bins, isinstance(low, int)) if _count(first, last, step) <= bins
        )
        start = _floor(first / step)
        edges = [(start + i) * step for i in range(_count(first, last, step) + 1)]
    if isinstance(low, float):
        limit = sys.float_info.max  # and no negative zero
        return [max(-limit, min(limit, float(edge))) + 0.0 for edge in edges]
    return [int(edge) if isinstance(low, int) else Decimal(f"{edge:f}") for edge in edges]


def _steps(low: Decimal, high: Decimal, bins: int, whole: bool) -> Iterator[Decimal]:
    width = (high - low) / bins or abs(low) or Decimal(1)
    power = width.adjusted()
    power = max(power, 0) if whole else power
    while True:
        yield from (Decimal(digit).scaleb(power) for digit in (1, 2, 5))
        power += 1


def _count(low: Decimal, high: Decimal, step: Decimal) -> int:
    return int(_floor(high / step) - _floor(low / step)) + 1


def _floor(number: Decimal) -> Decimal:
    return number // 1 - (number % 1 < 0)  # `//` of decimals truncates


def _time_edges(low: datetime, high: datetime, bins: int, unit: int = 1) -> list[datetime]:
    """Return starts of a unit of the calendar, of at least `unit` seconds."""
    zone, first, last = UTC if low.tzinfo else None, _plain(low), _plain(high)
    for seconds in _SECONDS:
        step = timedelta(seconds=seconds)
        if seconds >= unit and (last - _FIRST_DAY) // step - (first - _FIRST_DAY) // step < bins:
            edges = _multiples(first, last, step)
            break
    else:
        edges = _months(first, last, bins)
    return [edge.replace(tzinfo=zone) for edge in edges]


def _plain(moment: datetime) -> datetime:
    """Return a time stamp without its offset, in UTC, as Python's own type, which has no nanoseconds."""
    plain = datetime.combine(moment.date(), moment.timetz())
    if plain.tzinfo is None:
        return plain
    try:
        return plain.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # within a day of the calendar's end
        return plain.replace(tzinfo=None)


def _multiples(low: datetime, high: datetime, step: timedelta) -> list[datetime]:
    start, stop = (low - _FIRST_DAY) // step, (high - _FIRST_DAY) // step + 1
    return [_after(_FIRST_DAY, step * i) for i in range(start, stop + 1)]


def _after(start: datetime, duration: timedelta) -> datetime:
    try:
        return start + duration
    except OverflowError:
        return datetime.max


def _months(low: datetime, high: datetime, bins: int) -> list[datetime]:
    first, last = (12 * value.year + value.month - 1 for value in (low, high))
    step = next(step for step in _MONTHS if last // step - first // step < bins)
    return [_start_of_month(i * step) for i in range(first // step, last // step + 2)]


def _start_of_month(months: int) -> datetime:
    year, month = divmod(max(12, months), 12)
    return datetime(year, month + 1, 1) if year <= datetime.max.year else datetime.max
