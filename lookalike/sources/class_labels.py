"""Names of classes in Parquet files that Hugging Face's `datasets` wrote: a column of numbers becomes one of names.

The schema's metadata describes such a column: `{"_type": "ClassLabel", "names": ["cat", "dog"]}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

_KEY = b"huggingface"


@dataclass(frozen=True, slots=True)
class NamedClasses:
    """A column whose numbers have names.

    Attributes:
        type: the column's Arrow type with names in place of numbers.
        convert: a cell with numbers -> the cell with names; a number without a name becomes None.
    """

    type: pa.DataType
    convert: Callable[[Any], Any]


def named_classes(schema: pa.Schema) -> dict[str, NamedClasses]:
    """Return the columns that hold numbers of named classes, alone, in lists or in records."""
    features = _features(schema)
    found = {
        field.name: _named(features[field.name], field.type)
        for field in schema
        if schema.names.count(field.name) == 1 and field.name in features
    }
    return {name: named for name, named in found.items() if named}


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    try:
        features = json.loads((schema.metadata or {}).get(_KEY, b"{}"))["info"]["features"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _named(feature: Any, kind: pa.DataType) -> NamedClasses | None:
    if isinstance(feature, list) and len(feature) == 1:  # the old form of a list
        feature = {"_type": "Sequence", "feature": feature[0]}
    if not isinstance(feature, dict):
        return None
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list) and pa.types.is_integer(kind):
        return NamedClasses(pa.string(), lambda value: _name(names, value))
    inner = feature.get("feature")
    if pa.types.is_struct(kind):  # a list of records is stored as a record of lists
        return _named_fields(_lists_of(inner) if isinstance(inner, dict) else feature, kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _named_elements(inner, kind)
    return None


def _name(names: list[Any], value: Any) -> str | None:
    return str(names[value]) if value is not None and 0 <= value < len(names) else None


def _lists_of(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: {"_type": "Sequence", "feature": feature} for name, feature in fields.items()}


def _named_fields(features: dict[str, Any], kind: pa.DataType) -> NamedClasses | None:
    found = {field.name: _named(features.get(field.name), field.type) for field in kind}
    named = {name: classes for name, classes in found.items() if classes}
    if not named:
        return None
    types = [(field.name, named[field.name].type if field.name in named else field.type) for field in kind]

    def convert(value: Any) -> Any:
        if value is None:
            return None
        return {name: named[name].convert(cell) if name in named else cell for name, cell in value.items()}

    return NamedClasses(pa.struct(types), convert)


def _named_elements(feature: Any, kind: pa.DataType) -> NamedClasses | None:
    element = _named(feature, kind.value_type)
    if element is None:
        return None
    return NamedClasses(
        pa.list_(element.type), lambda value: None if value is None else [element.convert(cell) for cell in value]
    )
