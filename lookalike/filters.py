"""Filters on metadata: JSON -> mask of the rows that a search may return.

    {"must": [{"field": "brand", "in": ["acme", "orbit"]}, {"field": "price", "range": {"lt": 20}}],
     "must_not": [{"field": "caption", "exists": false}]}

A list passes if any of its elements does. A row without a value passes only `exists: false`. Arrow evaluates filters
over memory-mapped columns.

Dimension letters: n rows of the collection, m values.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import reduce
from typing import Annotated, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
    model_validator,
)

from lookalike.errors import FilterInvalid
from lookalike.types import Bool

MAX_CONDITIONS = 64
MAX_VALUES = 10_000
MAX_DEPTH = 8
_ABOVE_ALL_INTEGERS = 2.0**70
"""Larger than any value of an integer column."""
_MAX_SUGGESTION_CHARACTERS = 200
"""A longer column name is not compared with the existing names for a suggestion."""


def _finite(value: Any) -> Any:
    """Reject infinity: JSON has none, but 1e999 is read as one."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    return value


Scalar = Annotated[StrictBool | StrictInt | StrictFloat | StrictStr, BeforeValidator(_finite)]
Bound = Annotated[StrictInt | StrictFloat | StrictStr, BeforeValidator(_finite)]

_OPERATORS = ("equals", "in", "range", "prefix", "exists")
_KEYS: dict[str | int, str] = {
    "condition": f"a condition has field and one of {', '.join(_OPERATORS)}",
    "range": "a range has gt, gte, lt and lte",
    "filter": "a filter has must, should and must_not, and a condition has field",
}
"""What an error about an unknown key says, by the object that has the key."""


class Columns(Protocol):
    """A table to filter: a collection's metadata."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        ...

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the (n,) values of a column."""
        ...

    def __len__(self) -> int: ...


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Range(_Model):
    """Bounds of a number, or of a date in ISO 8601; at least one."""

    gt: Bound | None = Field(default=None, description="Greater than this.")
    gte: Bound | None = Field(default=None, description="Greater than or equal to this.")
    lt: Bound | None = Field(default=None, description="Less than this.")
    lte: Bound | None = Field(default=None, description="Less than or equal to this.")

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if not self.model_fields_set:
            raise ValueError("give at least one of gt, gte, lt and lte")
        return self


class Condition(_Model):
    """A test of one metadata column: `field` and exactly one operator."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"field": "price", "range": {"gte": 5, "lt": 20}}]})

    field: str = Field(description="Name of the column; `a.b` is the field `b` of a column of records.")
    equals: Scalar | None = Field(default=None, description="The value equals this; dates are in ISO 8601.")
    in_: Annotated[list[Scalar], Field(max_length=MAX_VALUES, fail_fast=True)] | None = Field(
        default=None, alias="in", description="The value equals one of these."
    )
    range: Range | None = Field(default=None, description="The value is within these bounds.")
    prefix: str | None = Field(default=None, description="The value is a text that starts with this.")
    exists: StrictBool | None = Field(default=None, description="Whether the item has a value in this column.")

    @model_validator(mode="after")
    def _one_operator(self) -> Condition:
        operators = self.model_fields_set - {"field"}
        if len(operators) != 1:
            raise ValueError(f"give exactly one of {', '.join(_OPERATORS)}")
        if getattr(self, *operators) is None:
            raise ValueError("null equals nothing; select rows without a value by exists: false")
        return self


def _kind(part: Any) -> str:
    """Return which of the two a part is, so that an error names only that one."""
    return "condition" if isinstance(part, Condition) or (isinstance(part, dict) and "field" in part) else "filter"


Part = Annotated[
    Annotated[Condition, Tag("condition")] | Annotated["Filter", Tag("filter")],
    Discriminator(_kind),
]
Parts = Annotated[list[Part], Field(max_length=MAX_CONDITIONS, fail_fast=True)]
"""Validation stops at the first error: a body may hold a million parts."""


class Filter(_Model):
    """Conditions on metadata, and nested filters.

    An item passes if all of `must` and none of `must_not` hold. If there is a `should`, at least one of it must hold.
    A filter has at most 64 conditions and filters in all, nested 8 deep.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"must": [{"field": "brand", "in": ["acme", "orbit"]}]}]})

    must: Parts = Field(default=[], description="All of these must hold.")
    should: Parts = Field(default=[], description="At least one of these must hold.")
    must_not: Parts = Field(default=[], description="None of these may hold.")

    @model_validator(mode="after")
    def _bounded(self) -> Filter:
        depth, count = _depth_and_size(self)
        if depth > MAX_DEPTH or count > MAX_CONDITIONS:
            raise ValueError(f"a filter has at most {MAX_CONDITIONS} conditions and filters, nested {MAX_DEPTH} deep")
        return self


def parse_filter(text: str) -> Filter:
    """Parse a filter from JSON.

    Raises:
        FilterInvalid: the text is not JSON, has an unknown key or operator, or is too large.
    """
    try:
        return Filter.model_validate_json(text)
    except ValidationError as error:
        raise filter_error(error) from error


def filter_error(error: ValidationError, skip: int = 0) -> FilterInvalid:
    """Convert pydantic's first error to one line, without the first `skip` names, which lead to the filter."""
    first = error.errors(include_url=False, include_input=False)[0]
    location, message = first["loc"][skip:], first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        kind = location[-2] if len(location) > 1 else "filter"
        message = f"unknown key; {_KEYS.get(kind, _KEYS['filter'])}"
    elif location[-1:] in (("bool",), ("int",)):  # the first member of the union `Scalar` or `Bound`
        message = "give a text or a number" + (", or true or false" if location[-1] == "bool" else "")
        message += "; a date is a text in ISO 8601"
        location = location[:-1]
    steps = [str(step) for step in location if step not in ("condition", "filter")]
    return FilterInvalid(f"{'.'.join(['filter', *steps])}: {message}")


def filter_mask(condition: Filter, columns: Columns) -> Bool:
    """Return (n,) bool: the rows that pass.

    Raises:
        FilterInvalid: a column does not exist, or a value does not fit its type.
    """
    mask = np.ones(len(columns), dtype=np.bool_)
    for part in condition.must:
        mask &= _part_mask(part, columns)
    if condition.should:
        mask &= np.any([_part_mask(part, columns) for part in condition.should], axis=0)
    for part in condition.must_not:
        mask &= ~_part_mask(part, columns)
    return mask


def _part_mask(part: Part, columns: Columns) -> Bool:
    return filter_mask(part, columns) if isinstance(part, Filter) else _condition_mask(part, columns)


def _condition_mask(condition: Condition, columns: Columns) -> Bool:
    values = _values(condition.field, columns)
    try:
        return _mask(condition, values)
    except pa.ArrowException as error:
        raise FilterInvalid(
            f"filter field {condition.field!r} holds {values.type}, which does not support this test"
        ) from error


def _mask(condition: Condition, values: pa.ChunkedArray) -> Bool:
    if condition.exists is not None:
        return _numpy(values.is_valid() if condition.exists else values.is_null())
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        mask = np.zeros(len(values), dtype=np.bool_)
        passed = _test(condition, pc.list_flatten(values))
        mask[pc.list_parent_indices(values).to_numpy()[passed]] = True
        return mask
    return _test(condition, values)


def _values(name: str, columns: Columns) -> pa.ChunkedArray:
    """Return a column, or a field of a column of records."""
    known = columns.columns
    if name in known:
        return _decoded(columns.column(name))
    outer, _, inner = name.partition(".")
    if inner and outer in known:
        values = columns.column(outer)
        for step in inner.split("."):
            if not pa.types.is_struct(values.type) or values.type.get_field_index(step) < 0:
                raise FilterInvalid(f"filter field {name!r}: {outer} has no {inner!r}; it is {values.type}")
            values = pc.struct_field(values, step)
        return _decoded(values)
    close = difflib.get_close_matches(name, known, 1) if len(name) <= _MAX_SUGGESTION_CHARACTERS else []
    suggestion = f"; did you mean {close[0]!r}?" if close else "."
    raise FilterInvalid(f"unknown metadata column {name!r}{suggestion} The columns are {', '.join(sorted(known))}")


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _test(condition: Condition, values: Any) -> Bool:
    """Test (m,) values of a scalar type; null fails."""
    if condition.prefix is not None:
        if not _is_text(values.type):
            raise _mismatch(condition.field, values.type, "prefix", condition.prefix)
        return _numpy(pc.starts_with(values, condition.prefix))
    if condition.in_ is not None:
        # Arrow's `is_in` takes no JSON number for a decimal, and no 16-bit floats: compare with one value at a time.
        if pa.types.is_decimal(values.type) or pa.types.is_float16(values.type):
            equal = [_compare(condition.field, values, "equals", value) for value in condition.in_]
            return reduce(np.logical_or, equal, np.zeros(len(values), dtype=np.bool_))
        options = condition.in_
        if pa.types.is_integer(values.type):  # values outside the column's type equal none of its rows
            options = [value for value in options if not _is_json_number(value) or _fits(value, values.type)]
        scalars = [_scalar(condition.field, value, values.type) for value in options]
        return _numpy(pc.is_in(values, pa.array([scalar.as_py() for scalar in scalars], values.type)))
    if condition.range is not None:
        return reduce(np.logical_and, _bounds(condition, values))
    return _compare(condition.field, values, "equals", condition.equals)


def _bounds(condition: Condition, values: Any) -> Iterator[Bool]:
    assert condition.range is not None
    for name in condition.range.model_fields_set:
        bound = getattr(condition.range, name)
        if _is_text(values.type) or pa.types.is_boolean(values.type):
            raise _mismatch(condition.field, values.type, "range", bound)
        yield _compare(condition.field, values, name, bound)


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "equals": pc.equal,
    "gt": pc.greater,
    "gte": pc.greater_equal,
    "lt": pc.less,
    "lte": pc.less_equal,
}


def _compare(field: str, values: Any, test: str, value: Any) -> Bool:
    """Compare (m,) values; numbers are converted to the column's type, so that 0.1 equals a 32-bit float's 0.1."""
    number = _is_json_number(value)
    if number and pa.types.is_integer(values.type):
        return _compare_integers(values, test, value)
    if number and pa.types.is_float16(values.type):  # Arrow can't compare these
        with np.errstate(over="ignore"):
            value = float(np.float16(_limited(value)))
            values = values.cast(pa.float32())
    exact = number and pa.types.is_floating(values.type)
    return _numpy(_COMPARISONS[test](values, _scalar(field, value, values.type, exact=exact)))


def _compare_integers(values: Any, test: str, value: float) -> Bool:
    """Compare (m,) integers, with bounds limited to the range of the column's type."""
    value = value if isinstance(value, int) else _limited(value)
    limits = np.iinfo(values.type.to_pandas_dtype())
    low, high = int(limits.min), int(limits.max)
    floor, ceil = math.floor(value), math.ceil(value)
    first = max(low, {"equals": ceil, "gt": floor + 1, "gte": ceil}.get(test, low))
    last = min(high, {"equals": floor, "lt": ceil - 1, "lte": floor}.get(test, high))
    if first > last:
        return np.zeros(len(values), dtype=np.bool_)
    if first == last:
        return _numpy(pc.equal(values, pa.scalar(first, values.type)))
    if first > low:
        return _numpy(pc.greater_equal(values, pa.scalar(first, values.type)))
    return _numpy(pc.less_equal(values, pa.scalar(last, values.type)))


def _limited(value: float) -> float:
    return max(-_ABOVE_ALL_INTEGERS, min(_ABOVE_ALL_INTEGERS, value))


def _scalar(field: str, value: Any, kind: pa.DataType, *, exact: bool = True) -> pa.Scalar:
    """Convert a JSON value to the column's type, or, if not `exact`, to a type that compares with it."""
    if _is_text(kind) and isinstance(value, str):
        return pa.scalar(value, kind)
    if pa.types.is_boolean(kind) and isinstance(value, bool):
        return pa.scalar(value)
    number = _is_json_number(value)
    try:
        if _is_number(kind) and number:
            whole = pa.types.is_integer(kind) and exact
            floating = pa.types.is_floating(kind) and exact
            return pa.scalar(int(value) if whole else float(value) if floating else value, kind if exact else None)
        if pa.types.is_temporal(kind) and isinstance(value, str):
            return _date_or_time(value, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise _mismatch(field, kind, "value", value) from error
    raise _mismatch(field, kind, "value", value)


def _date_or_time(value: str, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_date(kind):
        return pa.scalar(date.fromisoformat(value), kind)
    return pa.scalar(datetime.fromisoformat(value), kind)


def _mismatch(field: str, kind: pa.DataType, what: str, value: Any) -> FilterInvalid:
    return FilterInvalid(f"filter field {field!r} holds {kind}; {what} {value!r} can't be compared with that")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_json_number(value: Any) -> bool:
    """Return whether a value is a JSON number; in Python a bool is an int, too."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fits(value: Any, kind: pa.DataType) -> bool:
    """Return whether an integer column of this type can hold the value."""
    limits = np.iinfo(kind.to_pandas_dtype())
    return bool(value == math.floor(value) and limits.min <= value <= limits.max)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _numpy(mask: Any) -> Bool:
    """Convert Arrow booleans to NumPy, null to False."""
    filled = pc.fill_null(mask, False)
    if isinstance(filled, pa.ChunkedArray):
        filled = filled.combine_chunks()
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _depth_and_size(condition: Filter) -> tuple[int, int]:
    """Return a filter's nesting depth, and its number of conditions and filters."""
    depth, count = 0, 0
    for part in [*condition.must, *condition.should, *condition.must_not]:
        inner = _depth_and_size(part) if isinstance(part, Filter) else (0, 1)
        depth, count = max(depth, inner[0]), count + inner[1] + isinstance(part, Filter)
    return depth + 1, count
