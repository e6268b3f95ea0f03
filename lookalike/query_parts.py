"""The query of the Python API: a text, a part, or a list of parts, as dictionaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypedDict, cast

from lookalike.errors import QueryError
from lookalike.image_inputs import ImageInput
from lookalike.messages import quoted, unknown_name
from lookalike.query import MAX_PARTS
from lookalike.search import Modality
from lookalike.types import Float32

PartKind = Literal["text", "image", "id", "embedding"]
KINDS: tuple[PartKind, ...] = ("text", "image", "id", "embedding")


class QueryPart(TypedDict, total=False):
    """A part of a query: exactly one of the first four keys, and its weight, 1.0 if it is left out."""

    text: str
    image: ImageInput
    id: str
    embedding: Sequence[float] | Float32
    weight: float


Query = str | QueryPart | Sequence[QueryPart]
"""A text, a part, or a list of parts, which are added by their weights."""


@dataclass(frozen=True, slots=True)
class WeightedInput:
    """A part of a query.

    Attributes:
        kind: what `value` is.
        value: as the caller passed it.
        weight: in the sum of the parts; a finite number.
    """

    kind: PartKind
    value: Any
    weight: float = 1.0


def read_query(query: object) -> list[WeightedInput]:
    """Return the parts of a query.

    Raises:
        QueryError: no parts, too many of them, a part with an unknown key or not exactly one value, or a weight that
            is no finite number.
        TypeError: a value of another type.
    """
    if isinstance(query, str):
        return [WeightedInput("text", query)]
    if isinstance(query, Mapping):
        return [_read_part("query", query)]
    if not isinstance(query, list | tuple):
        raise TypeError(
            f"a query is a text, a part such as {{'image': 'cat.jpg'}}, or a list of parts, not {type(query).__name__}"
        )
    if not 1 <= len(query) <= MAX_PARTS:
        raise QueryError(f"a list of {len(query):,} parts; a query has 1 to {MAX_PARTS} parts")
    return [_read_part(f"query[{position}]", part) for position, part in enumerate(query)]


def modality(parts: Sequence[WeightedInput]) -> Modality | None:
    """Return the kind of a query that has probabilities: a single text or image (as an item, too); None for others."""
    if len(parts) != 1 or parts[0].weight <= 0 or parts[0].kind == "embedding":
        return None
    return "text" if parts[0].kind == "text" else "image"


def _read_part(name: str, part: object) -> WeightedInput:
    if not isinstance(part, Mapping):
        raise TypeError(f"{name} is {quoted(part)}; a part is a dictionary such as {{'text': 'a cat', 'weight': 0.5}}")
    for key in part:
        if key not in (*KINDS, "weight"):
            raise QueryError(f"{name}: {unknown_name('key', str(key), (*KINDS, 'weight'))}")
    found = [kind for kind in KINDS if part.get(kind) is not None]
    if len(found) != 1:
        raise QueryError(f"{name}: give exactly one of {', '.join(KINDS)}; it has {' and '.join(found) or 'none'}")
    return WeightedInput(found[0], part[found[0]], _weight(name, part.get("weight", 1.0)))


def _weight(name: str, weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise TypeError(f"{name}: weight must be a number, not {type(weight).__name__}")
    number = float(cast(float, weight))
    if not math.isfinite(number):
        raise QueryError(f"{name}: weight is {number}; it must be a finite number")
    return number
