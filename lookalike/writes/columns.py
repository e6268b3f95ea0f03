"""The columns of a collection that is written to: those of its version, and those that writes created.

A value must fit its column's type. The first value of a new column decides the column's type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import pyarrow as pa

from lookalike.columns import is_list, type_name
from lookalike.errors import MAX_VALUE_CHARACTERS, MetadataInvalid
from lookalike.facets import plain_type
from lookalike.json_values import MAX_EXACT_INTEGER, converter
from lookalike.messages import quoted

MAX_COLUMNS = 256
"""Columns up to which writes may create new ones."""
MAX_METADATA_BYTES = 64 << 10
MAX_METADATA_DEPTH = 5
_MAX_NAME_CHARACTERS = 128
MEASURED_COLUMNS = ("width", "height", "format", "truncated")
"""Columns that are measured on the image."""
_JOB_COLUMNS = ("id", "source", "path", *MEASURED_COLUMNS)
"""Columns that clients can't set: the indexing job and the decoder write them."""


class WritableColumns:
    """The columns of one collection, by name. Grows; columns are never removed.

    Attributes:
        types: of all columns in their order, `id` among them.
        new: those of them that writes created.
    """

    def __init__(
        self,
        version: Mapping[str, pa.DataType],
        new: Mapping[str, pa.DataType],
        has_large: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """Hold the columns of a version and those that writes created.

        Args:
            version: of the version's metadata.
            new: created by writes. Where both have a column, the version's type has precedence, unless it can become
                the other one.
            has_large: whether a column of the version has a whole number that a column of decimals can't hold.
        """
        self.types: dict[str, pa.DataType] = dict(version)
        self.new: dict[str, pa.DataType] = {}
        self._has_large = has_large
        self._large: set[str] = set()  # columns of which a write has such a number
        for name, kind in new.items():
            before = version.get(name, kind)
            if before == kind or pa.types.is_null(before) or (before == pa.int64() and kind == pa.float64()):
                self._add({name: kind})

    def _add(self, found: Mapping[str, pa.DataType]) -> None:
        self.types |= found
        self.new |= found

    def typed(self, metadata: Mapping[str, Any], *, as_text: bool = False) -> TypedRecord:
        """Return metadata as values of the columns' types.

        Args:
            metadata: JSON values; None and empty values of unknown columns are left out.
            as_text: whether columns of text take any value as text, since they had another type when it was written.

        Returns:
            The record; `new` are the columns that it needs, which `add` adds.

        Raises:
            MetadataInvalid: a value does not fit its column, or a name can't be a column.
        """
        values: dict[str, Any] = {}
        new: dict[str, pa.DataType] = {}
        for name, value in metadata.items():
            if value is None:
                continue
            kind = self.types.get(name)
            if kind is None or pa.types.is_null(kind):
                kind = _inferred(name, value)
                if kind is None:
                    continue
                new[name] = kind
            elif name in self.new and _is_widened(value, kind) and not self._holds_large(name):
                new[name] = kind = pa.float64()
            if as_text and _is_text(kind) and not isinstance(value, str):
                value = _text(value)
            values[name] = _fitting(name, value, kind)
        created = sorted(new.keys() - self.types.keys())
        if created and len(self.types) + len(created) > MAX_COLUMNS:
            raise MetadataInvalid(
                f"{quoted(created[0])} is no column, and there are {len(self.types)}; writes create columns up to "
                f"{MAX_COLUMNS}"
            )
        self._large |= {name for name, value in values.items() if _is_large(value)}
        return TypedRecord(values, new)

    def _holds_large(self, name: str) -> bool:
        return name in self._large or self._has_large(name)

    def add(self, record: TypedRecord) -> None:
        """Add the columns that a record needs."""
        if record.new:
            self._add(record.new)

    def json_ready(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return typed values as they are in responses, in the order of the columns."""
        return {name: _json_ready(values[name], kind) for name, kind in self.types.items() if name in values}


class TypedRecord:
    """Metadata as values of the columns' types.

    Attributes:
        values: by column, for `pyarrow.array` with the column's type.
        new: columns that are to be created or widened.
    """

    __slots__ = ("new", "values")

    def __init__(self, values: dict[str, Any], new: dict[str, pa.DataType]) -> None:
        self.values, self.new = values, new


def require_metadata(metadata: Mapping[str, Any]) -> None:
    """Check the size, the nesting and the names of metadata that a client sends.

    Raises:
        MetadataInvalid: it is too large or nested too deep, or a name can't be a column that clients set.
    """
    if (depth := _depth(metadata)) > MAX_METADATA_DEPTH:  # first: deeper ones may not be written as JSON
        raise MetadataInvalid(
            f"the metadata is nested {depth} deep; it may be nested at most {MAX_METADATA_DEPTH} deep"
        )
    require_size(metadata)
    for name, value in metadata.items():
        if name in _JOB_COLUMNS:
            measured = "is measured on the image" if name in MEASURED_COLUMNS else "can't be set by a write"
            raise MetadataInvalid(f"metadata.{name} {measured}; leave it out")
        if not name or name.startswith("_") or len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
            raise MetadataInvalid(
                f"{quoted(name)} can't be a column: a name has 1 to {_MAX_NAME_CHARACTERS} printable characters and "
                "does not begin with an underscore"
            )
        _require_unicode(name, value)


def require_size(metadata: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> None:
    """Check the size of metadata; what the sources made larger `before` may stay so, but not grow.

    Raises:
        MetadataInvalid: it is too large.
    """
    size = _json_bytes(metadata)
    if size > MAX_METADATA_BYTES and (before is None or size > _json_bytes(before)):
        raise MetadataInvalid(f"the metadata has {size:,} bytes of JSON; it may have at most {MAX_METADATA_BYTES:,}")


def _json_bytes(metadata: Mapping[str, Any]) -> int:
    return len(json.dumps(metadata, ensure_ascii=False).encode(errors="replace"))


def _depth(value: Any) -> int:
    """Return how deep objects and lists are nested; deeper levels than the limit are not visited."""
    levels, current = 0, [value]
    while current and levels <= MAX_METADATA_DEPTH:
        nested = [each for each in current if isinstance(each, Mapping | list)]
        if not nested:
            return levels
        levels += 1
        current = [inner for each in nested for inner in (each.values() if isinstance(each, Mapping) else each)]
    return levels


def _require_unicode(name: str, value: Any) -> None:
    try:
        json.dumps({name: value}, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise MetadataInvalid(f"metadata.{name} holds text that is not valid Unicode") from error


def _inferred(name: str, value: Any) -> pa.DataType | None:
    """Return the type of a new column; None for a value without one, such as an empty list."""
    value = _without_null(value)
    if value is None:
        return None
    try:
        kind = pa.infer_type([value])
        pa.array([value], kind)
        return kind
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        reason = "the elements of a list must have one type" if isinstance(value, list | Mapping) else str(error)
        raise MetadataInvalid(f"metadata.{name} is {_text(value)}: {reason}") from error


def _without_null(value: Any) -> Any:
    """Return a value without members and elements that have no type; None if nothing is left."""
    if isinstance(value, Mapping):
        cleaned = {str(k): inner for k, v in value.items() if (inner := _without_null(v)) is not None}
        return cleaned or None
    if isinstance(value, list):
        return [inner for each in value if (inner := _without_null(each)) is not None] or None
    return value


def _is_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > MAX_EXACT_INTEGER


def _is_widened(value: Any, kind: pa.DataType) -> bool:
    """Return whether a column of whole numbers must become one of any numbers to hold the value."""
    return pa.types.is_int64(kind) and isinstance(value, float) and not value.is_integer()


def _fitting(name: str, value: Any, kind: pa.DataType) -> Any:
    try:
        fitted = _fit(value, kind)
        pa.array([fitted], kind)
    except (_Unfit, pa.ArrowException, OverflowError, ValueError, TypeError, InvalidOperation) as error:
        detail = f": {error}" if isinstance(error, _Unfit) and str(error) else ""
        raise MetadataInvalid(
            f"metadata.{name} is {_text(value)}, but the column holds {_kind_text(kind)}{detail}"
        ) from error
    return fitted


class _Unfit(Exception):
    """A value that does not fit its type; the message says which part, if the type is nested."""


def _fit(value: Any, kind: pa.DataType) -> Any:
    """Return a JSON value as a value for `pyarrow.array` with the type; raise _Unfit or what the conversion raises."""
    if value is None:
        return None
    if pa.types.is_dictionary(kind):
        return _fit(value, kind.value_type)
    if is_list(kind):
        if not isinstance(value, list):
            raise _Unfit
        return [_fit_part("an element", each, kind.value_type) for each in value]
    if pa.types.is_struct(kind):
        return _fit_record(value, kind)
    if pa.types.is_map(kind):
        return [(_fit(key, kind.key_type), _fit(item, kind.item_type)) for key, item in _pairs(value)]
    fit = next((convert for test, convert in _FITS if test(kind)), None)
    if fit is None:
        raise _Unfit("writes can't set such values")
    return fit(value)


def _fit_record(value: Any, kind: pa.DataType) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _Unfit
    for name, inner in value.items():
        if kind.get_field_index(name) < 0 and _without_null(inner) is not None:
            raise _Unfit(f"it has no field {quoted(str(name))}")
    return {field.name: _fit_part(f"its {field.name}", value.get(field.name), field.type) for field in kind}


def _fit_part(name: str, value: Any, kind: pa.DataType) -> Any:
    """Return a part of a nested value as `_fit` does; raise _Unfit with its name, value and type."""
    try:
        return _fit(value, kind)
    except (_Unfit, OverflowError, ValueError, TypeError, InvalidOperation) as error:
        if isinstance(error, _Unfit) and str(error):
            raise
        raise _Unfit(f"{name} is {_text(value)}, not {plain_type(kind)}") from error


def _pairs(value: Any) -> list[Any]:
    if not isinstance(value, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in value):
        raise _Unfit("a map is a list of pairs")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise _Unfit
    if isinstance(value, str):  # responses have integers beyond 2 ** 53 as text
        return int(value) if value.lstrip("-").isascii() and value.lstrip("-").isdigit() else _unfit()
    if isinstance(value, float) and not value.is_integer():
        raise _Unfit
    return int(value) if isinstance(value, int | float) else _unfit()


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Unfit
    if _is_large(value):
        raise _Unfit("a whole number beyond 2^53 would lose digits; send it as text, in a column of texts")
    return float(value)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Unfit
    return Decimal(str(value))


def _of_type(kind: type) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, kind) else _unfit()


def _iso(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: parse(value) if isinstance(value, str) else _unfit("write it in ISO 8601")


def _seconds(value: Any) -> timedelta:
    return timedelta(seconds=_number(value))


def _uuid(value: Any) -> bytes:
    return UUID(value).bytes if isinstance(value, str) else _unfit()


def _unfit(detail: str = "") -> Any:
    raise _Unfit(detail)


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.UuidType)


_FITS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], Any]], ...] = (
    (pa.types.is_boolean, _of_type(bool)),
    (pa.types.is_integer, _whole),
    (pa.types.is_floating, _number),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_string, _of_type(str)),
    (pa.types.is_large_string, _of_type(str)),
    (pa.types.is_string_view, _of_type(str)),
    (pa.types.is_date, _iso(date.fromisoformat)),
    (pa.types.is_timestamp, _iso(datetime.fromisoformat)),
    (pa.types.is_time, _iso(time.fromisoformat)),
    (pa.types.is_duration, _seconds),
    (_is_uuid, _uuid),
)
"""Test of a type -> conversion of a JSON value."""
_PLAIN_TYPES = (pa.string(), pa.float64(), pa.bool_())
"""Types whose fitted values are in responses as they are."""


def _json_ready(value: Any, kind: pa.DataType) -> Any:
    if kind in _PLAIN_TYPES:
        return value
    column = pa.chunked_array([pa.array([value], kind)])
    return converter(column)(column.to_pylist()[0])


def _kind_text(kind: pa.DataType) -> str:
    plain = plain_type(kind)
    if pa.types.is_struct(kind):
        return f"record of {', '.join(f'{field.name} ({plain_type(field.type)})' for field in kind)}"
    return plain if plain == type_name(kind) or pa.types.is_nested(kind) else f"{plain} ({type_name(kind)})"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(value: Any) -> str:
    """Return a value as JSON of at most 200 characters, for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]} ..."
