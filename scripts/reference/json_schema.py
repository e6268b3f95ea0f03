"""JSON Schema -> the cells of a table: a field's type, range and default."""

from __future__ import annotations

import json
from typing import Any

from scripts.reference.markdown import linked, table

Schema = dict[str, Any]

_NULL = {"type": "null"}
_COMMON = (
    *("limit", "offset", "min_score", "min_probability", "filter", "params", "fields", "include"),
    *("group_by", "group_size", "deduplicate", "took_ms", "collection", "version", "encoder"),
)
"""Fields of every search or response: after its own."""


def fields_table(schema: Schema, anchors: dict[str, str], *, request: bool) -> str:
    """Return the fields of an object; those of a request with their defaults."""
    required = schema.get("required", [])
    rows = [
        (
            f"`{name}`",
            type_of(field, anchors, null=not request),
            default_of(field, required=name in required) if request else "",
            range_of(field),
            linked(field.get("description", ""), anchors),
        )
        for name, field in in_order(schema)
    ]
    return table(("field", "type", "default", "range", "description"), rows)


def in_order(schema: Schema) -> list[tuple[str, Schema]]:
    """Return the fields of an object: the required ones first, those of every search or response last."""
    required = schema.get("required", [])

    def rank(field: tuple[str, Schema]) -> tuple[bool, int]:
        last = field[0] in _COMMON and not schema["properties"].keys().isdisjoint(("collection", "limit"))
        return field[0] not in required, _COMMON.index(field[0]) if last else -1

    return sorted(schema["properties"].items(), key=rank)


def type_of(schema: Schema, anchors: dict[str, str], *, null: bool = True) -> str:
    """Return a type in words; `null` says whether null is named as an alternative."""
    if "$ref" in schema:
        name = reference(schema)
        return f"[{name}]({anchors[name]})" if name in anchors else name
    if alternatives := schema.get("anyOf", schema.get("oneOf")):
        kinds = [type_of(each, anchors) for each in alternatives if null or each != _NULL]
        return " or ".join(dict.fromkeys(kinds))
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " or ".join(f"`{json.dumps(value)}`" for value in values)
    if "prefixItems" in schema:
        entries = dict.fromkeys(type_of(each, anchors) for each in schema["prefixItems"])
        return f"array of {len(schema['prefixItems'])}: {', '.join(entries)}"
    if "items" in schema:
        return f"array of {type_of(schema['items'], anchors)}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_of(schema['additionalProperties'], anchors)}"
    return "file" if schema.get("format") == "binary" else str(schema.get("type", "any"))


def default_of(schema: Schema, *, required: bool) -> str:
    """Return the default of a request's field."""
    if required:
        return "required"
    value = schema.get("default")
    return "optional" if value in (None, []) else f"`{json.dumps(value)}`"


def range_of(schema: Schema) -> str:
    """Return the limits of a value in words; empty where it has none."""
    if "anyOf" in schema:
        return next(filter(None, map(range_of, schema["anyOf"])), "")
    if "maxItems" in schema and "prefixItems" not in schema:
        return f"at most {schema['maxItems']:,} entries"
    return limits(schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum"))


def limits(low: float | None, high: float | None, above: float | None = None) -> str:
    """Return the limits of a number in words."""
    if above is not None:
        return f"more than {above:g}"
    if low is None or high is None:
        return "" if low is None else f"{low:,g} or more"
    return f"{low:g} to {high:g}"


def reference(schema: Schema) -> str:
    """Return the name of the model that a schema refers to; empty where it is no reference."""
    return str(schema.get("$ref", "")).rpartition("/")[2]
