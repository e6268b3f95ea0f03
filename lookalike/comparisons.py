"""Comparison of a column with JSON values, in the column's own type.

Numbers may be JSON numbers or text, such as "19.90". Integers, decimals, dates, times and durations are compared
exactly; a value for a column of floats is rounded to the column's type first; texts are compared in Unicode's NFC.

Dimension letters: m values of a column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any
from unicodedata import normalize
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from lookalike.types import Bool

JsonScalar = bool | int | float | str

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?", re.ASCII)
_FRACTION = re.compile(r"[.,](\d+)")
_LARGEST = Decimal("1e400")
"""Larger than any value of any column; the limit of numbers in a filter, so that converting one takes no time."""
MAYBE_NOT_NFC = (
    r"[\p{M}\x{374}\x{37E}\x{387}\x{958}-\x{F69}\x{1161}-\x{1175}\x{11A8}-\x{11C2}\x{1F71}-\x{1FFD}\x{2000}\x{2001}"
    r"\x{2126}-\x{2ADC}\x{F900}-\x{FB4E}\x{1D15E}-\x{1D1C0}\x{2F800}-\x{2FA1D}]"
)
"""Pattern of a character that a text in another form than NFC has: marks, Hangul vowels and finals, variants."""
_PLACES = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Incomparable(Exception):
    """A value that does not fit the column's type."""

    def __init__(self, value: JsonScalar) -> None:
        super().__init__(value)
        self.value = value


class ComparableColumn:
    """The (m,) values of a column; a null passes no test. A type supports the tests that its class overrides.

    Every test returns (m,) bool, and raises Incomparable for a value that does not fit the type.
    """

    def __init__(self, values: pa.ChunkedArray) -> None:
        self._values = values

    def among(self, options: Sequence[JsonScalar]) -> Bool:
        """Return where the value equals one of the options."""
        for option in options:
            raise Incomparable(option)
        return np.zeros(len(self._values), np.bool_)

    def within(self, test: str, bound: JsonScalar) -> Bool:
        """Return where the value is `gt`, `gte`, `lt` or `lte` the bound."""
        raise Incomparable(bound)

    def starts_with(self, prefix: str) -> Bool:
        """Return where the text begins with the prefix."""
        raise Incomparable(prefix)

    def plain(self) -> pa.ChunkedArray | None:
        """Return the values as int64, double, bool or string, to be compared by another engine; None if they are none.

        A plain value equals a plain option, or is within a plain bound, where the value passes the test here.
        """
        return None

    def plain_options(self, options: Sequence[JsonScalar]) -> list[Any]:
        """Return the options that a value of the type may equal, as plain values; of floats both zeros, or none."""
        raise NotImplementedError

    def plain_bound(self, test: str, bound: JsonScalar) -> tuple[str, Any] | None:
        """Return the test and its plain bound; None if no value passes."""
        raise NotImplementedError


def comparable(values: pa.ChunkedArray) -> ComparableColumn:
    """Return the values with the tests of their type."""
    kind = values.type
    if pa.types.is_null(kind):
        return _Empty(values)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _Text(values)
    if pa.types.is_string_view(kind):
        return _Text(values.cast(pa.string()))
    if pa.types.is_boolean(kind):
        return _Boolean(values)
    if pa.types.is_floating(kind):
        return _Floating(values)
    if isinstance(kind, pa.UuidType):
        return _Uuid(values.cast(kind.storage_type))
    return _exact(values) or ComparableColumn(values)


class _Empty(ComparableColumn):
    """A column without any value."""

    @override
    def among(self, options: Sequence[JsonScalar]) -> Bool:
        return np.zeros(len(self._values), np.bool_)

    @override
    def within(self, test: str, bound: JsonScalar) -> Bool:
        return self.among([])

    @override
    def starts_with(self, prefix: str) -> Bool:
        return self.among([])


class _Text(ComparableColumn):
    @override
    def among(self, options: Sequence[JsonScalar]) -> Bool:
        texts = pa.array(self.plain_options(options), self._values.type)
        return self._composed(lambda values: _is_in(values, texts))

    @override
    def starts_with(self, prefix: str) -> Bool:
        return self._composed(lambda values: pc.starts_with(values, normalize("NFC", prefix)))

    @override
    def plain(self) -> pa.ChunkedArray:
        return pc.utf8_normalize(self._values.cast(pa.string()), "NFC")

    @override
    def plain_options(self, options: Sequence[JsonScalar]) -> list[Any]:
        return [normalize("NFC", _text(option)) for option in options]

    def _composed(self, test: Callable[[pa.ChunkedArray], Any]) -> Bool:
        """Test the values in NFC; only those that may be in another form are converted, since it takes long."""
        passed = numpy_mask(test(self._values))
        others = np.flatnonzero(~numpy_mask(pc.fill_null(pc.string_is_ascii(self._values), True)))
        if len(others):
            texts = self._values.take(pa.array(others))
            unsure = numpy_mask(pc.match_substring_regex(texts, MAYBE_NOT_NFC))
            passed[others[unsure]] = numpy_mask(test(pc.utf8_normalize(texts.filter(pa.array(unsure)), "NFC")))
        return passed


class _Boolean(ComparableColumn):
    @override
    def among(self, options: Sequence[JsonScalar]) -> Bool:
        return numpy_mask(_is_in(self._values, pa.array(self.plain_options(options), pa.bool_())))

    @override
    def plain(self) -> pa.ChunkedArray:
        return self._values

    @override
    def plain_options(self, options: Sequence[JsonScalar]) -> list[Any]:
        return list(map(_truth, options))


class _Uuid(ComparableColumn):
    """UUIDs as their 16 bytes."""

    @override
    def among(self, options: Sequence[JsonScalar]) -> Bool:
        return numpy_mask(_is_in(self._values, pa.array(map(_uuid_bytes, options), self._values.type)))


class _Floating(ComparableColumn):
    """Floats of 16, 32 or 64 bits; a value is rounded to the same precision, so that 0.1 equals a 32-bit 0.1."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        self._precision = np.dtype(values.type.to_pandas_dtype()).type
        super().__init__(values.cast(pa.float32()) if pa.types.is_float16(values.type) else values)  # Arrow lacks tests

    @override
    def among(self, options: Sequence[JsonScalar]) -> Bool:
        return numpy_mask(_is_in(self._values, pa.array(self.plain_options(options), self._values.type)))

    @override
    def within(self, test: str, bound: JsonScalar) -> Bool:
        test, value = self.plain_bound(test, bound)
        return numpy_mask(_COMPARISONS[test](self._values, pa.scalar(value, self._values.type)))

    @override
    def plain(self) -> pa.ChunkedArray:
        return self._values.cast(pa.float64())

    @override
    def plain_options(self, options: Sequence[JsonScalar]) -> list[Any]:
        rounded = [value for value in map(self._rounded, options) if math.isfinite(value)]
        zeros = [0.0, -0.0] if 0.0 in rounded else []  # Arrow's `is_in`, also in Milvus Lite, takes them for two values
        return [value for value in rounded if value] + zeros

    @override
    def plain_bound(self, test: str, bound: JsonScalar) -> tuple[str, float]:
        value = self._rounded(bound)
        if math.isinf(value):  # the bound lies between the largest finite value and infinity
            test = test[:2] + ("e" if (test[0] == "g") == (value > 0) else "")
        return test, value

    def _rounded(self, value: JsonScalar) -> float:
        number = value if isinstance(value, float) else float(_number(value))
        with np.errstate(over="ignore"):
            return float(self._precision(number))


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "gt": pc.greater,
    "gte": pc.greater_equal,
    "lt": pc.less,
    "lte": pc.less_equal,
}


class _Exact(ComparableColumn):
    """Values that are whole numbers of a unit: integers, decimals, dates, times and durations.

    Args:
        values: integers, or decimals.
        units: JSON value -> number of units, not always whole.
        low, high: range of the type, in units.
        value: number of units -> the value in the column's type.
    """

    def __init__(
        self,
        values: pa.ChunkedArray,
        units: Callable[[JsonScalar], Decimal],
        low: int,
        high: int,
        value: Callable[[int], int | Decimal] = int,
    ) -> None:
        super().__init__(values)
        self._units, self._value = units, value
        self._low, self._high = low, high

    @override
    def among(self, options: Sequence[JsonScalar]) -> Bool:
        return numpy_mask(_is_in(self._values, pa.array(self.plain_options(options), self._values.type)))

    @override
    def within(self, test: str, bound: JsonScalar) -> Bool:
        limit = self.plain_bound(test, bound)
        if limit is None:
            return np.zeros(len(self._values), np.bool_)
        return numpy_mask(_COMPARISONS[limit[0]](self._values, pa.scalar(limit[1], self._values.type)))

    @override
    def plain(self) -> pa.ChunkedArray | None:
        if pa.types.is_decimal(self._values.type) or self._values.type == pa.uint64():
            return None
        return self._values.cast(pa.int64())

    @override
    def plain_options(self, options: Sequence[JsonScalar]) -> list[Any]:
        amounts = [amount for amount in map(self._units, options) if amount == _floor(amount)]
        return [self._value(int(amount)) for amount in amounts if self._low <= amount <= self._high]

    @override
    def plain_bound(self, test: str, bound: JsonScalar) -> tuple[str, Any] | None:
        amount = self._units(bound)
        floor, ceiling = int(_floor(amount)), int(amount.to_integral_value(ROUND_CEILING))
        first = {"gt": floor + 1, "gte": ceiling}.get(test, self._low)
        last = {"lt": ceiling - 1, "lte": floor}.get(test, self._high)
        if first > self._high or last < self._low:
            return None
        test, limit = ("gte", first) if first > self._low else ("lte", min(last, self._high))
        return test, self._value(limit)


def _exact(values: pa.ChunkedArray) -> _Exact | None:
    kind = values.type
    if pa.types.is_integer(kind):
        return _integers(values, _exact_number)
    if pa.types.is_decimal(kind):
        return _decimals(values)
    if not pa.types.is_temporal(kind) or pa.types.is_interval(kind):
        return None
    integers = values.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    if pa.types.is_date(kind):
        per_day = 1 if pa.types.is_date32(kind) else 86_400_000
        return _integers(integers, lambda value: _days(value) * per_day)
    seconds = _seconds if pa.types.is_timestamp(kind) else _seconds_of_day if pa.types.is_time(kind) else _number
    return _integers(integers, lambda value: _shifted(seconds(value), _PLACES[kind.unit]))


def _integers(values: pa.ChunkedArray, units: Callable[[JsonScalar], Decimal]) -> _Exact:
    limits = np.iinfo(values.type.to_pandas_dtype())
    return _Exact(values, units, int(limits.min), int(limits.max))


def _decimals(values: pa.ChunkedArray) -> _Exact:
    kind = values.type
    if kind.bit_width < 128:  # `is_in` takes no narrower ones
        values = values.cast(pa.decimal128(kind.precision, kind.scale))
    limit = 10**kind.precision - 1
    return _Exact(
        values,
        lambda value: _shifted(_number(value), kind.scale),
        -limit,
        limit,
        lambda units: _shifted(Decimal(units), -kind.scale),
    )


def _text(value: JsonScalar) -> str:
    if not isinstance(value, str):
        raise Incomparable(value)
    return value


def _truth(value: JsonScalar) -> bool:
    if not isinstance(value, bool):
        raise Incomparable(value)
    return value


def _uuid_bytes(value: JsonScalar) -> bytes:
    try:
        return UUID(_text(value)).bytes
    except ValueError as error:
        raise Incomparable(value) from error


def _number(value: JsonScalar) -> Decimal:
    """Return a number as it is written: 19.9, not the nearest binary fraction."""
    numeric = _NUMBER.fullmatch(value) if isinstance(value, str) else type(value) in (int, float)
    if not numeric:
        raise Incomparable(value)
    number = Decimal(repr(value) if isinstance(value, float) else value)
    return min(max(number, -_LARGEST), _LARGEST)


def _exact_number(value: JsonScalar) -> Decimal:
    """Return a number for integers, which Python's floats equal exactly."""
    return Decimal(value) if isinstance(value, float) else _number(value)


def _shifted(number: Decimal, places: int) -> Decimal:
    """Multiply by a power of ten, without rounding."""
    sign, digits, exponent = number.as_tuple()
    return Decimal((sign, digits, int(exponent) + places))


def _floor(number: Decimal) -> Decimal:
    return number.to_integral_value(ROUND_FLOOR)


def _days(value: JsonScalar) -> Decimal:
    try:
        return Decimal(date.fromisoformat(_text(value)).toordinal() - _EPOCH.toordinal())
    except ValueError as error:
        raise Incomparable(value) from error


def _seconds(value: JsonScalar) -> Decimal:
    """Return seconds since 1970; a time without an offset counts as UTC."""
    try:
        moment = datetime.fromisoformat(_text(value)).replace(microsecond=0)
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError) as error:
        raise Incomparable(value) from error
    return since.days * 86_400 + since.seconds + _fraction(value)


def _seconds_of_day(value: JsonScalar) -> Decimal:
    try:
        moment = time.fromisoformat(_text(value))
    except ValueError as error:
        raise Incomparable(value) from error
    if moment.tzinfo:
        raise Incomparable(value)
    return moment.hour * 3600 + moment.minute * 60 + moment.second + _fraction(value)


def _fraction(value: JsonScalar) -> Decimal:
    """Return the fraction of a second with all its digits; Python's times have six."""
    found = _FRACTION.search(str(value))
    return Decimal(f"0.{found[1]}") if found else Decimal(0)


def _is_in(values: pa.ChunkedArray, options: pa.Array) -> Any:
    """Return where the values are among the options; one option is compared in a fraction of the time."""
    return pc.equal(values, options[0]) if len(options) == 1 else pc.is_in(values, options)


def numpy_mask(mask: Any) -> Bool:
    """Convert Arrow booleans to NumPy, null to False."""
    filled = pc.fill_null(mask, False)
    if isinstance(filled, pa.ChunkedArray):
        filled = filled.combine_chunks()
    return np.array(filled.to_numpy(zero_copy_only=False), dtype=np.bool_)
