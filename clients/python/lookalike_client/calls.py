"""The calls of the service: each a method, a path, a body, and a function that reads the response.

`Client` and `AsyncClient` send them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx

from lookalike_client.call import Call, given_options, member, record
from lookalike_client.errors import ApiError, error_of_problem
from lookalike_client.images import image_bytes
from lookalike_client.inputs import Input, Part, Query, SearchRequest, as_parts, part_body, side_body
from lookalike_client.results import (
    CollectionInfo,
    Comparison,
    Count,
    Facets,
    ItemDetails,
    ItemMap,
    Items,
    Ready,
    SearchResults,
    StageStats,
    Thumbnail,
    parse,
)

_NEEDS_PARAMETER = re.compile(r"[\x00-\x1f\x7f-\x9f\\%?#;]|(^|/)\.{0,2}(/|\Z)|/(thumbnail|original)\Z")
"""Ids that a path can't carry through every proxy."""

MAX_FIELD_BYTES = 60_000
"""Longest option in a form, a little less than the service accepts; a longer one is sent in JSON."""


def search(base: str, parts: Sequence[Part], options: Mapping[str, Any]) -> Call[SearchResults]:
    """Search by the parts of a query."""
    read, given = record(SearchResults), given_options(options)
    part = parts[0] if len(parts) == 1 and parts[0].weight == 1.0 and parts[0].embedding is None else None
    if part is None:
        body = {"query": [part_body(each) for each in parts], **given}
        return Call(method="POST", path=f"{base}/search", read=read, json=body)
    if part.image is not None and (form := _form(given)) is not None:
        files = {"file": image_bytes(part.image)}
        return Call(method="POST", path=f"{base}/search/image", read=read, data=form, files=files)
    kind = "text" if part.text is not None else "item" if part.id is not None else "image"
    return Call(method="POST", path=f"{base}/search/{kind}", read=read, json={**part_body(part), **given})


def search_batch(base: str, queries: Sequence[Query | SearchRequest]) -> Call[list[SearchResults | ApiError]]:
    """Run several searches."""
    body = {"queries": [_search_body(each) for each in queries]}
    return Call(method="POST", path=f"{base}/search/batch", read=_read_batch, json=body)


def compare(base: str, a: Input, b: Input, threshold: float | None) -> Call[Comparison]:
    """Compare two sides."""
    body = {"a": side_body(a), "b": side_body(b), **given_options({"threshold": threshold})}
    return Call(method="POST", path=f"{base}/similarity", read=record(Comparison), json=body)


def items(base: str, options: Mapping[str, Any]) -> Call[Items]:
    """List a page of items."""
    return Call(method="GET", path=f"{base}/items", read=record(Items), params=_texts(given_options(options)))


def item(base: str, item_id: str, fields: Sequence[str] | None) -> Call[ItemDetails]:
    """Get an item."""
    path, params = _item_address(base, item_id)
    params |= _texts(given_options({"fields": fields}))
    return Call(method="GET", path=path, read=_read_item, params=params)


def thumbnail(base: str, item_id: str) -> Call[Thumbnail]:
    """Get an item's thumbnail."""
    path, params = _item_address(base, item_id)
    return Call(method="GET", path=f"{path}/thumbnail", read=_read_thumbnail, params=params)


def original(base: str, item_id: str) -> Call[bytes]:
    """Get an item's original."""
    path, params = _item_address(base, item_id)
    return Call(method="GET", path=f"{path}/original", read=lambda response: response.content, params=params)


def fields(base: str) -> Call[Facets]:
    """List the columns."""
    return Call(method="GET", path=f"{base}/fields", read=record(Facets))


def facets(base: str, options: Mapping[str, Any]) -> Call[Facets]:
    """Describe the columns of some items."""
    return Call(method="POST", path=f"{base}/facets", read=record(Facets), json=given_options(options))


def count(base: str, condition: Mapping[str, Any] | None) -> Call[Count]:
    """Count items."""
    return Call(method="POST", path=f"{base}/count", read=record(Count), json=given_options({"filter": condition}))


def item_map(base: str, field: str | None) -> Call[ItemMap]:
    """Get the map."""
    return Call(method="GET", path=f"{base}/map", read=record(ItemMap), params=_texts(given_options({"field": field})))


def collections() -> Call[list[CollectionInfo]]:
    """List the collections."""
    return Call(method="GET", path="/v1/collections", read=member("collections", list[CollectionInfo]))


def collection_info(name: str) -> Call[CollectionInfo]:
    """Describe a collection."""
    return Call(method="GET", path=base_path(name), read=record(CollectionInfo))


def reload(name: str) -> Call[CollectionInfo]:
    """Serve the newest version of a collection."""
    return Call(method="POST", path=f"{base_path(name)}/reload", read=record(CollectionInfo), retried=False)


def stats() -> Call[dict[str, StageStats]]:
    """Get times by stage."""
    return Call(method="GET", path="/v1/stats", read=member("stages", dict[str, StageStats]))


def live() -> Call[None]:
    """Check the process."""
    return Call(method="GET", path="/livez", read=lambda _: None, retried=False)


def ready() -> Call[Ready]:
    """Check that queries succeed."""
    return Call(method="GET", path="/readyz", read=record(Ready), retried=False)


def metrics() -> Call[str]:
    """Get the metrics."""
    return Call(method="GET", path="/metrics", read=lambda response: response.text)


def base_path(collection: str | None) -> str:
    """Return the path below which a collection's calls are; None for the default collection."""
    return "/v1" if collection is None else f"/v1/collections/{quote(collection, safe='')}"


def item_path(base: str, item_id: str) -> str | None:
    """Return the path of an item; None if a path can't carry its id."""
    if not item_id or _NEEDS_PARAMETER.search(item_id):
        return None
    return f"{base}/items/{quote(item_id, safe='/')}"


def _read_item(response: httpx.Response) -> ItemDetails:
    return replace(record(ItemDetails)(response), etag=response.headers.get("ETag"))


def _read_batch(response: httpx.Response) -> list[SearchResults | ApiError]:
    read = member("responses", list[dict[str, Any]])(response)
    return [error_of_problem(each) if "code" in each else parse(SearchResults, each) for each in read]


def _read_thumbnail(response: httpx.Response) -> Thumbnail:
    return Thumbnail(data=response.content, media_type=response.headers.get("Content-Type", ""))


def _search_body(query: Query | SearchRequest) -> dict[str, Any]:
    if isinstance(query, Mapping) and "query" in query:
        options = given_options({name: value for name, value in query.items() if name != "query"})
        return {"query": [part_body(part) for part in as_parts(query["query"])], **options}
    return {"query": [part_body(part) for part in as_parts(query)]}


def _texts(options: Mapping[str, Any]) -> dict[str, str | int]:
    """Return options as a query string or a form has them."""
    return {name: value if isinstance(value, str) else _text(name, value) for name, value in options.items()}


def _text(name: str, value: Any) -> str:
    return ",".join(value) if name == "include" else json.dumps(value)


def _form(options: Mapping[str, Any]) -> dict[str, str] | None:
    """Return options as fields of a form; None if one is too long for that."""
    form = {name: str(value) for name, value in _texts(options).items()}
    return None if any(len(value.encode()) > MAX_FIELD_BYTES for value in form.values()) else form


def _item_address(base: str, item_id: str) -> tuple[str, dict[str, str | int]]:
    """Return the path of an item and its parameters; any id can be a parameter, not every one a path."""
    path = item_path(base, item_id)
    return (f"{base}/item", {"id": item_id}) if path is None else (path, {})
