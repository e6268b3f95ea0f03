"""Calls of every method of the clients, and the requests that they send."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx

from lookalike_client import ApiError, AsyncClient, Client, Part, Patch, Put
from tests.api.small_collection import PHOTOGRAPHS

PHOTOGRAPH = PHOTOGRAPHS / "chelsea.png"

CALLS: dict[str, list[Callable[[Any], Any]]] = {
    "search": [
        lambda client: client.search("a cat", limit=2, fields=["caption"], include=["embedding"]),
        lambda client: client.search(image=PHOTOGRAPH, filter={"must": []}, deduplicate=True),
        lambda client: client.search(image_url="http://127.0.0.1/cat.jpg"),
        lambda client: client.search(id="cat.png"),
        lambda client: client.search(query=["a cat", Part(id="cat.png", weight=-0.5)]),
    ],
    "iter_search": [lambda client: client.iter_search(image=PHOTOGRAPH, total=3)],
    "search_batch": [lambda client: client.search_batch(["a cat", {"query": Part(id="cat.png"), "limit": 1}])],
    "compare": [lambda client: client.compare("a cat", PHOTOGRAPH, threshold=0.5)],
    "similarity_matrix": [lambda client: client.similarity_matrix(["a cat", PHOTOGRAPH], [{"id": "cat.png"}])],
    "classify": [lambda client: client.classify([PHOTOGRAPH], ["cat", "dog"], template="a photo of a {}.")],
    "embed": [lambda client: client.embed(["a cat", PHOTOGRAPH])],
    "models": [lambda client: client.models()],
    "model": [lambda client: client.model("lite")],
    "items": [lambda client: client.items(limit=2, sort="-width")],
    "iter_items": [lambda client: client.iter_items(filter={"must": []})],
    "item": [lambda client: client.item("a/cat.png"), lambda client: client.item("../x", fields=[])],
    "thumbnail": [lambda client: client.thumbnail("a/cat.png"), lambda client: client.thumbnail("cup/thumbnail")],
    "original": [lambda client: client.original("a/cat.png"), lambda client: client.original("cup/original")],
    "put_item": [
        lambda client: client.put_item("a/cat.png", PHOTOGRAPH, metadata={"caption": "a cat"}, if_none_match="*"),
        lambda client: client.put_item("a/cat.png", image_url="http://127.0.0.1/cat.jpg", if_match='"1"'),
        lambda client: client.put_item("a?.png", PHOTOGRAPH),
    ],
    "patch_item": [lambda client: client.patch_item("a/cat.png", {"caption": None}, if_match='"1"')],
    "delete_item": [lambda client: client.delete_item("a/cat.png", if_match='"1"')],
    "write_items": [
        lambda client: client.write_items(
            [Put(id="cat.png", image=PHOTOGRAPH), Patch(id="cat.png", metadata={"a": 1}), {"op": "delete", "id": "b"}]
        )
    ],
    "delete_items": [lambda client: client.delete_items({"must": []}, dry_run=True)],
    "fields": [lambda client: client.fields()],
    "facets": [lambda client: client.facets(fields=["width"], bins=3)],
    "count": [lambda client: client.count({"must": []})],
    "map": [lambda client: client.map(), lambda client: client.map("width")],
    "collections": [lambda client: client.collections()],
    "collection_info": [lambda client: client.collection_info("my collection")],
    "reload": [lambda client: client.reload("my collection")],
    "stats": [lambda client: client.stats()],
    "live": [lambda client: client.live()],
    "ready": [lambda client: client.ready()],
    "metrics": [lambda client: client.metrics()],
}
"""Method -> calls of it, with each form that it sends."""


def requests(call: Callable[[Any], Any], collection: str | None) -> list[httpx.Request]:
    """Return what a call of `Client` sends to a service that refuses everything."""
    sent: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: _refuse(request, sent))
    with Client("http://service", "key", collection, transport=transport) as client:
        try:
            result = call(client)
            if isinstance(result, Iterator):
                list(result)
        except ApiError as error:
            if error.code != "refused":
                raise
    return sent


async def async_requests(call: Callable[[Any], Any], collection: str | None) -> list[httpx.Request]:
    """Return what a call of `AsyncClient` sends to a service that refuses everything."""
    sent: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: _refuse(request, sent))
    async with AsyncClient("http://service", "key", collection, transport=transport) as client:
        try:
            result = call(client)
            if isinstance(result, AsyncIterator):
                [entry async for entry in result]
            elif inspect.isawaitable(result):
                await result
        except ApiError as error:
            if error.code != "refused":
                raise
    return sent


def _refuse(request: httpx.Request, sent: list[httpx.Request]) -> httpx.Response:
    sent.append(request)
    return httpx.Response(400, json={"status": 400, "code": "refused", "detail": "no"})
