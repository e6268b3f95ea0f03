"""Texts, images and items that callers give, as the service takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from lookalike_client.images import ImageFile, ImageInput, as_base64, image_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a query, or one side of a pair: exactly one of the first five.

    Attributes:
        text: a text.
        image: an image; a `str` is the path of its file.
        image_url: URL of an image that the service fetches, if it is configured so.
        id: an item of the collection.
        embedding: an embedding of the collection's encoder; only for queries.
        weight: weight of the part in a query. A negative one moves away from it.
    """

    text: str | None = None
    image: ImageInput | None = None
    image_url: str | None = None
    id: str | None = None
    embedding: Sequence[float] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        names = ("text", "image", "image_url", "id", "embedding")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(names)}, not {' and '.join(given) or 'none'}")

    def loaded(self) -> Part:
        """Return the part with the bytes of its image, which may be sent more than once."""
        return self if self.image is None else replace(self, image=image_bytes(self.image))


Input = str | ImageFile | Part | Mapping[str, Any]
"""A text (`str`), an image (`Path`, bytes, file, Pillow image), a `Part`, or a dict such as `{"id": "cat.jpg"}`."""

Query = Input | Sequence[Input]
"""One part, or several that are added by their weights."""


class Params(TypedDict, total=False):
    """How thoroughly to search; absent values are those that were tuned."""

    nprobe: int
    efSearch: int
    candidates: int
    exact: bool


class ResultOptions(TypedDict, total=False):
    """The options of every search, but for the page.

    Attributes:
        filter: only items whose metadata passes are found.
        fields: metadata columns of the results; all by default.
        min_score: lowest score of a result.
        min_probability: lowest probability of a result.
        group_by: column of which each value has at most `group_size` results.
        group_size: number of results of a group.
        deduplicate: True, or the cosine from which items are near-identical and only the best is a result.
        include: `["embedding"]` for results with their unit vectors.
        params: how thoroughly to search.
    """

    filter: Mapping[str, Any] | None
    fields: Sequence[str] | None
    min_score: float | None
    min_probability: float | None
    group_by: str | None
    group_size: int
    deduplicate: bool | float
    include: Sequence[str]
    params: Params | None


class SearchOptions(ResultOptions, total=False):
    """The options of a search."""

    limit: int
    offset: int


class SearchRequest(SearchOptions):
    """One search of a batch: its query and its options."""

    query: Query


def as_part(given: Input) -> Part:
    """Return a part; a `str` is a text."""
    if isinstance(given, Part):
        return given
    if isinstance(given, str):
        return Part(text=given)
    return Part(**given) if isinstance(given, Mapping) else Part(image=given)


def as_parts(query: Query) -> list[Part]:
    """Return the parts of a query."""
    return [as_part(each) for each in query] if isinstance(query, list | tuple) else [as_part(query)]  # type: ignore[arg-type]


def part_body(part: Part) -> dict[str, Any]:
    """Return a part of a query in JSON."""
    body: dict[str, Any] = _body(part)
    if part.embedding is not None:
        body["embedding"] = [float(value) for value in part.embedding]
    if part.weight != 1.0:
        body["weight"] = part.weight
    return body


def side_body(given: Input) -> dict[str, Any]:
    """Return a side of a pair in JSON."""
    part = as_part(given)
    if part.embedding is not None or part.weight != 1.0:
        raise ValueError("a side of a pair is a text, an image or an item; it has no embedding and no weight")
    return _body(part)


def _body(part: Part) -> dict[str, Any]:
    if part.image is not None:
        return {"image": as_base64(part.image)}
    given = {"text": part.text, "id": part.id, "url": part.image_url}
    return {name: value for name, value in given.items() if value is not None}


def single_part(
    text: str | None, image: ImageInput | None, image_url: str | None, id: str | None, query: Query | None
) -> list[Part]:
    """Return the parts of a search, of which exactly one argument is given."""
    if query is None:
        return [Part(text=text, image=image, image_url=image_url, id=id)]
    if any(value is not None for value in (text, image, image_url, id)):
        raise ValueError("give either query, or one of text, image, image_url and id")
    return as_parts(query)
