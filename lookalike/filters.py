"""Filters on metadata: JSON -> mask of the rows that a search may return.

    {"must": [{"field": "brand", "in": ["acme", "orbit"]}, {"field": "price", "range": {"lt": 20}}],
     "must_not": [{"field": "caption", "exists": false}]}

A list passes if any of its elements does. A row without a value passes only `exists: false`. Arrow evaluates filters
over memory-mapped columns.

Dimension letters: n rows of the collection, m values.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
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

from lookalike.columns import Columns, UnknownField, field_values, flatten, type_name
from lookalike.comparisons import Incomparable, comparable, numpy_mask
from lookalike.errors import MAX_VALUE_CHARACTERS, FilterInvalid
from lookalike.messages import quoted
from lookalike.types import Bool

MAX_CONDITIONS = 64
MAX_VALUES = 10_000
MAX_DEPTH = 8


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


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Range(_Model):
    """Bounds of a number, which may be given as text, or of a date or time in ISO 8601; at least one."""

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
    equals: Scalar | None = Field(
        default=None, description="The value equals this; dates are in ISO 8601, and a number may be given as text."
    )
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
    steps = [str(step)[:MAX_VALUE_CHARACTERS] for step in location if step not in ("condition", "filter")]
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
    if condition.exists is not None:
        return numpy_mask(values.is_valid() if condition.exists else values.is_null())
    try:
        return _mask(condition, values)
    except pa.ArrowException as error:
        raise FilterInvalid(
            f"filter field {quoted(condition.field)} holds {type_name(values.type)}, which does not support this test"
        ) from error


def _mask(condition: Condition, values: pa.ChunkedArray) -> Bool:
    elements, rows = flatten(values)
    passed = _test(condition, elements)
    if rows is None:
        return passed
    mask = np.zeros(len(values), dtype=np.bool_)  # a list passes if any element does
    mask[rows[passed]] = True
    return mask


def _values(name: str, columns: Columns) -> pa.ChunkedArray:
    try:
        return field_values(name, columns)
    except UnknownField as error:
        raise FilterInvalid(str(error)) from error


def _test(condition: Condition, values: pa.ChunkedArray) -> Bool:
    """Test (m,) values of a scalar type; null fails."""
    column, what = comparable(values), "value"
    try:
        if condition.prefix is not None:
            what = "prefix"
            return column.starts_with(condition.prefix)
        if condition.range is not None:
            what = "range"
            bounds = {name: getattr(condition.range, name) for name in condition.range.model_fields_set}
            within: Bool = np.all([column.within(name, bound) for name, bound in bounds.items()], axis=0)
            return within
        if condition.in_ is not None:
            return column.among(condition.in_)
        assert condition.equals is not None
        return column.among([condition.equals])
    except Incomparable as error:
        held = f"{quoted(condition.field)} holds {type_name(values.type)}"
        raise FilterInvalid(f"filter field {held}; {what} {quoted(error.value)} can't be compared with that") from error


def _depth_and_size(condition: Filter) -> tuple[int, int]:
    """Return a filter's nesting depth, and its number of conditions and filters."""
    depth, count = 0, 0
    for part in [*condition.must, *condition.should, *condition.must_not]:
        inner = _depth_and_size(part) if isinstance(part, Filter) else (0, 1)
        depth, count = max(depth, inner[0]), count + inner[1] + isinstance(part, Filter)
    return depth + 1, count
