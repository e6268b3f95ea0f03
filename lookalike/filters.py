"""Filter JSON -> row mask: which rows of a collection a search may return.

    {"must": [{"field": "brand", "in": ["acme", "orbit"]}, {"field": "price", "range": {"lt": 20}}],
     "must_not": [{"field": "caption", "exists": false}]}

A column that holds lists passes where any of its elements does; a row without a value passes `exists: false` alone.
Evaluated by Arrow over memory-mapped columns. It knows nothing of vectors. n rows of the collection.
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
_BEYOND = 2.0**70
"""More than any column of whole numbers holds."""
_MOST_MISSPELT = 200
"""Characters of a column's name that is compared with all that there are."""


def _finite(value: Any) -> Any:
    """JSON has no infinity, but 1e999 is read as one."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    return value


Scalar = Annotated[StrictBool | StrictInt | StrictFloat | StrictStr, BeforeValidator(_finite)]
Bound = Annotated[StrictInt | StrictFloat | StrictStr, BeforeValidator(_finite)]

_OPERATORS = ("equals", "in", "range", "prefix", "exists")


class Columns(Protocol):
    """Where columns come from: a collection's metadata."""

    @property
    def columns(self) -> list[str]:
        """Their names."""
        ...

    def column(self, name: str) -> pa.ChunkedArray:
        """(n,) values."""
        ...

    def __len__(self) -> int: ...


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Range(_Model):
    """Bounds of a number or, as ISO 8601, of a date."""

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    @model_validator(mode="after")
    def _something(self) -> Range:
        if not self.model_fields_set:
            raise ValueError("give at least one of gt, gte, lt and lte")
        return self


class Condition(_Model):
    """One column and one of the five tests."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"field": "price", "range": {"gte": 5, "lt": 20}}]})

    field: str = Field(description="A metadata column; `a.b` reaches into a column of records.")
    equals: Scalar | None = Field(default=None, description="The value; dates as ISO 8601.")
    in_: Annotated[list[Scalar], Field(max_length=MAX_VALUES, fail_fast=True)] | None = Field(
        default=None, alias="in", description="Any of these values."
    )
    range: Range | None = Field(default=None, description="Between bounds.")
    prefix: str | None = Field(default=None, description="Text that starts so.")
    exists: StrictBool | None = Field(default=None, description="Whether the row has a value there.")

    @model_validator(mode="after")
    def _one_operator(self) -> Condition:
        given = self.model_fields_set - {"field"}
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(_OPERATORS)}")
        if getattr(self, *given) is None:
            raise ValueError("null equals nothing; ask for rows without a value by exists: false")
        return self


def _kind(part: Any) -> str:
    """Which of the two a part is meant to be, so that an error speaks of that one alone."""
    return "condition" if isinstance(part, Condition) or (isinstance(part, dict) and "field" in part) else "filter"


Part = Annotated[
    Annotated[Condition, Tag("condition")] | Annotated["Filter", Tag("filter")],
    Discriminator(_kind),
]
Parts = Annotated[list[Part], Field(max_length=MAX_CONDITIONS, fail_fast=True)]
"""What is wrong is told of the first part alone: a body may hold a million."""


class Filter(_Model):
    """Conditions, or filters within filters: all of `must`, one of `should` if there are any, none of `must_not`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"must": [{"field": "brand", "in": ["acme", "orbit"]}]}]})

    must: Parts = []
    should: Parts = []
    must_not: Parts = []

    @model_validator(mode="after")
    def _bounded(self) -> Filter:
        depth, count = _extent(self)
        if depth > MAX_DEPTH or count > MAX_CONDITIONS:
            raise ValueError(f"a filter has at most {MAX_CONDITIONS} conditions and filters, nested {MAX_DEPTH} deep")
        return self


def parse_filter(text: str) -> Filter:
    """A filter from its JSON.

    Raises:
        FilterInvalid: not JSON, an unknown key or operator, or too large.
    """
    try:
        return Filter.model_validate_json(text)
    except ValidationError as error:
        raise filter_error(error) from error


def filter_error(error: ValidationError, skip: int = 0) -> FilterInvalid:
    """What pydantic found wrong first, in one line; `skip` is how many names lead to the filter."""
    first = error.errors(include_url=False, include_input=False)[0]
    steps = [str(step) for step in first["loc"][skip:] if step not in ("condition", "filter")]
    return FilterInvalid(f"{'.'.join(['filter', *steps])}: {first['msg'].removeprefix('Value error, ')}")


def filter_mask(wanted: Filter, columns: Columns) -> Bool:
    """(n,) bool: the rows that pass.

    Raises:
        FilterInvalid: a column that does not exist, or a value that does not fit its type; names both.
    """
    mask = np.ones(len(columns), dtype=np.bool_)
    for part in wanted.must:
        mask &= _part_mask(part, columns)
    if wanted.should:
        mask &= np.any([_part_mask(part, columns) for part in wanted.should], axis=0)
    for part in wanted.must_not:
        mask &= ~_part_mask(part, columns)
    return mask


def _part_mask(part: Part, columns: Columns) -> Bool:
    return filter_mask(part, columns) if isinstance(part, Filter) else _condition_mask(part, columns)


def _condition_mask(condition: Condition, columns: Columns) -> Bool:
    values = _values(condition.field, columns)
    try:
        return _mask(condition, values)
    except pa.ArrowException as error:
        raise FilterInvalid(f"filter field {condition.field!r} holds {values.type}, which can't be asked so") from error


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
    """A column, or a field of a column of records."""
    known = columns.columns
    if name in known:
        return _plain(columns.column(name))
    outer, _, inner = name.partition(".")
    if inner and outer in known:
        values = columns.column(outer)
        for step in inner.split("."):
            if not pa.types.is_struct(values.type) or values.type.get_field_index(step) < 0:
                raise FilterInvalid(f"filter field {name!r}: {outer} has no {inner!r}; it is {values.type}")
            values = pc.struct_field(values, step)
        return _plain(values)
    near = difflib.get_close_matches(name, known, 1) if len(name) <= _MOST_MISSPELT else []
    meant = f"; did you mean {near[0]!r}?" if near else "."
    raise FilterInvalid(f"no metadata column is called {name!r}{meant} There are {', '.join(sorted(known))}")


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _test(condition: Condition, values: Any) -> Bool:
    """(m,) bool over values of a plain type; null fails."""
    if condition.prefix is not None:
        if not _is_text(values.type):
            raise _mismatch(condition.field, values.type, "prefix", condition.prefix)
        return _numpy(pc.starts_with(values, condition.prefix))
    if condition.in_ is not None:
        # A JSON number is no decimal, and Arrow does not look up 16-bit floats: these are compared one by one.
        if pa.types.is_decimal(values.type) or pa.types.is_float16(values.type):
            equal = [_compared(condition.field, values, "equals", value) for value in condition.in_]
            return reduce(np.logical_or, equal, np.zeros(len(values), dtype=np.bool_))
        asked = condition.in_
        if pa.types.is_integer(values.type):  # what such a column can't hold equals none of its rows
            asked = [value for value in asked if not _is_plain_number(value) or _held(value, values.type)]
        wanted = [_scalar(condition.field, value, values.type) for value in asked]
        return _numpy(pc.is_in(values, pa.array([value.as_py() for value in wanted], values.type)))
    if condition.range is not None:
        return reduce(np.logical_and, _bounds(condition, values))
    return _compared(condition.field, values, "equals", condition.equals)


def _bounds(condition: Condition, values: Any) -> Iterator[Bool]:
    assert condition.range is not None
    for name in condition.range.model_fields_set:
        bound = getattr(condition.range, name)
        if _is_text(values.type) or pa.types.is_boolean(values.type):
            raise _mismatch(condition.field, values.type, "range", bound)
        yield _compared(condition.field, values, name, bound)


_TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "equals": pc.equal,
    "gt": pc.greater,
    "gte": pc.greater_equal,
    "lt": pc.less,
    "lte": pc.less_equal,
}


def _compared(field: str, values: Any, test: str, value: Any) -> Bool:
    """(m,) bool; numbers in the column's own type, in which 0.1 is what a column of 32-bit floats holds for it."""
    number = _is_plain_number(value)
    if number and pa.types.is_integer(values.type):
        return _whole_compared(values, test, value)
    if number and pa.types.is_float16(values.type):  # which Arrow can hold but not compare
        with np.errstate(over="ignore"):
            value, values = float(np.float16(max(-_BEYOND, min(_BEYOND, value)))), values.cast(pa.float32())
    exact = number and pa.types.is_floating(values.type)
    return _numpy(_TESTS[test](values, _scalar(field, value, values.type, exact=exact)))


def _whole_compared(values: Any, test: str, value: float) -> Bool:
    """(m,) bool: whole numbers between two whole numbers, cut to those that the column's type has."""
    value = value if isinstance(value, int) else max(-_BEYOND, min(_BEYOND, value))
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


def _scalar(field: str, value: Any, wanted: pa.DataType, *, exact: bool = True) -> pa.Scalar:
    """A JSON value as the column's type, or, if not `exact`, as one to compare with it."""
    if _is_text(wanted) and isinstance(value, str):
        return pa.scalar(value, wanted)
    if pa.types.is_boolean(wanted) and isinstance(value, bool):
        return pa.scalar(value)
    number = _is_plain_number(value)
    try:
        if _is_number(wanted) and number:
            whole = pa.types.is_integer(wanted) and exact
            floating = pa.types.is_floating(wanted) and exact
            return pa.scalar(int(value) if whole else float(value) if floating else value, wanted if exact else None)
        if pa.types.is_temporal(wanted) and isinstance(value, str):
            return _moment(value, wanted)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise _mismatch(field, wanted, "value", value) from error
    raise _mismatch(field, wanted, "value", value)


def _moment(value: str, wanted: pa.DataType) -> pa.Scalar:
    if pa.types.is_date(wanted):
        return pa.scalar(date.fromisoformat(value), wanted)
    return pa.scalar(datetime.fromisoformat(value), wanted)


def _mismatch(field: str, kind: pa.DataType, what: str, value: Any) -> FilterInvalid:
    return FilterInvalid(f"filter field {field!r} holds {kind}; {what} {value!r} can't be compared with that")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_plain_number(value: Any) -> bool:
    """JSON's numbers; Python counts truth values among its own."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _held(value: Any, kind: pa.DataType) -> bool:
    """Whether a column of this type of whole numbers can hold the value."""
    limits = np.iinfo(kind.to_pandas_dtype())
    return bool(value == math.floor(value) and limits.min <= value <= limits.max)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _numpy(mask: Any) -> Bool:
    """Arrow booleans -> numpy, null as False."""
    filled = pc.fill_null(mask, False)
    if isinstance(filled, pa.ChunkedArray):
        filled = filled.combine_chunks()
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _extent(wanted: Filter) -> tuple[int, int]:
    """How deep a filter is nested, and how many conditions and filters it holds."""
    depth, count = 0, 0
    for part in [*wanted.must, *wanted.should, *wanted.must_not]:
        inner = _extent(part) if isinstance(part, Filter) else (0, 1)
        depth, count = max(depth, inner[0]), count + inner[1] + isinstance(part, Filter)
    return depth + 1, count
