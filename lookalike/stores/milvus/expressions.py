"""Translation of filters to Milvus's boolean expressions.

An expression selects the rows that `lookalike.filters.filter_mask` selects. A condition that Milvus can't express has
none; the caller then passes the rows themselves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from lookalike.columns import Columns, UnknownField, field_values
from lookalike.comparisons import ComparableColumn, Incomparable, comparable
from lookalike.filters import Condition, Filter
from lookalike.stores.milvus.fields import ABSENT, COMPARABLE, MilvusField, element_type

ROW = "row"
"""The primary key: a row's number."""

_ALL, _NONE = f"{ROW} >= 0", f"{ROW} < 0"
_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_MIN_INTEGER = -(2**63)
_LAST_BEFORE_SURROGATES, _FIRST_AFTER_SURROGATES, _LAST_CHARACTER = 0xD7FF, 0xE000, 0x10FFFF


class Untranslatable(Exception):
    """A condition without an expression."""


class Translator:
    """Translates filters for one collection.

    Args:
        metadata: the collection's, for the types of its columns.
        fields: name -> field in Milvus.
    """

    def __init__(self, metadata: Columns, fields: Mapping[str, MilvusField]) -> None:
        self._columns = {name: _empty_column(metadata, name) for name in fields}
        self._fields = fields

    def expression(self, condition: Filter) -> str | None:
        """Return the expression of a filter; None if Milvus can't express it, or the filter is invalid."""
        try:
            return self._filter(condition)
        except (Untranslatable, Incomparable, UnknownField):
            return None

    def _filter(self, condition: Filter) -> str:
        parts = [self._part(part) for part in condition.must]
        if condition.should:
            parts.append(" or ".join(self._part(part) for part in condition.should))
        parts += [f"not {self._part(part)}" for part in condition.must_not]
        return " and ".join(f"({part})" for part in parts) or _ALL

    def _part(self, part: Condition | Filter) -> str:
        return f"({self._filter(part) if isinstance(part, Filter) else self._condition(part)})"

    def _condition(self, condition: Condition) -> str:
        field = self._fields.get(condition.field)
        if field is None:
            raise Untranslatable(condition.field)
        if condition.exists is not None:
            return _exists(field, condition.exists)
        test = self._test(condition, field, self._columns[condition.field])
        return test if field.state is None else f"{field.state} == {COMPARABLE} and ({test})"

    def _test(self, condition: Condition, field: MilvusField, column: ComparableColumn) -> str:
        if condition.equals is not None or condition.in_ is not None:
            options = [condition.equals] if condition.equals is not None else condition.in_ or []
            return _among(field, column.plain_options(options))
        if field.repeated:
            raise Untranslatable(condition.field)
        if condition.prefix is not None and field.kind == "string":
            return _prefix(field, column.plain_options([condition.prefix])[0])
        if condition.range is not None and field.kind in ("int64", "double"):
            bounds = {name: getattr(condition.range, name) for name in condition.range.model_fields_set}
            return " and ".join(_bound(field, column.plain_bound(name, bound)) for name, bound in bounds.items())
        raise Untranslatable(condition.field)


def _empty_column(metadata: Columns, name: str) -> ComparableColumn:
    return comparable(pa.chunked_array([], element_type(field_values(name, metadata))))


def _exists(field: MilvusField, exists: bool) -> str:
    if field.state is None:
        return _ALL if exists else _NONE
    return f"{field.state} {'>' if exists else '=='} {ABSENT}"


def _among(field: MilvusField, options: Sequence[Any]) -> str:
    if not options:
        return _NONE
    literals = f"[{', '.join(map(_literal, options))}]"
    return f"array_contains_any({field.value}, {literals})" if field.repeated else f"{field.value} in {literals}"


def _bound(field: MilvusField, bound: tuple[str, Any] | None) -> str:
    if bound is None:
        return _NONE
    test, value = bound
    if isinstance(value, float) and math.isinf(value):  # Milvus holds finite values
        return _ALL if (value > 0) == test.startswith("l") else _NONE
    if isinstance(value, float) and math.isnan(value):
        return _NONE
    return f"{field.value} {_OPERATORS[test]} {_literal(value)}"


def _prefix(field: MilvusField, prefix: str) -> str:
    """Return a range of texts: `like` has no way to escape % and _ in every version. Texts are ordered as UTF-8."""
    if not prefix:
        return _ALL
    stem = prefix.rstrip(chr(_LAST_CHARACTER))
    lower = f"{field.value} >= {_literal(prefix)}"
    if not stem:
        return lower
    last = ord(stem[-1])
    following = _FIRST_AFTER_SURROGATES if last == _LAST_BEFORE_SURROGATES else last + 1
    return f"{lower} and {field.value} < {_literal(stem[:-1] + chr(following))}"


def _literal(value: Any) -> str:
    if isinstance(value, str):
        if any(0xD800 <= ord(character) < _FIRST_AFTER_SURROGATES or character == "\0" for character in value):
            raise Untranslatable(value)
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if value == _MIN_INTEGER:  # Milvus parses the digits before the sign
        raise Untranslatable(str(value))
    return repr(value)
