"""What a service must answer about all items, while no client writes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any
from urllib.parse import quote

import numpy as np

from lookalike.rerank import normalized_rows
from tests.crash.collection import random_embedding
from tests.crash.failure import Failure
from tests.crash.model import ClientModel, ItemState, tag
from tests.crash.service import Connection, Response

_THREADS = 3
_LIMIT = 1_000
_TOLERANCE = 1e-5


class Checker:
    """Compares a service with the models of all clients; settles the writes whose response was lost.

    Attributes:
        items: number of comparisons of an item with its model.
    """

    def __init__(self, models: Sequence[ClientModel]) -> None:
        self.items = 0
        self._models = {item_id: model for model in models for item_id in model.states}

    def check(self, port: int, random: Random, *, everything: bool) -> None:
        """Check all items by searches and lists; those that were written to also one by one. Raises Failure."""
        touched = [item_id for item_id, model in self._models.items() if everything or item_id in model.touched]
        found = dict(_in_threads(port, touched, self._get))
        for model in dict.fromkeys(self._models.values()):
            if problem := model.settle(found):
                histories = "\n".join(f"  {item_id}:\n{model.history(item_id)}" for item_id in model.lost)
                raise Failure(f"{problem}\n{histories}")
            model.touched.clear()
        with_thumbnail = [item_id for item_id in touched if (state := self._state(item_id)) and state.thumbnail]
        _in_threads(port, with_thumbnail, self._thumbnail)
        self.items += len(touched)
        connection = Connection(port)
        try:
            self._search(connection, random)
            self._lists(connection)
            self._facets(connection)
        finally:
            connection.close()

    def _state(self, item_id: str) -> ItemState | None:
        return self._models[item_id].states[item_id]

    def _living(self) -> dict[str, ItemState]:
        states = ((item_id, self._state(item_id)) for item_id in self._models)
        return {item_id: state for item_id, state in states if state is not None}

    def _get(self, connection: Connection, item_id: str) -> tuple[str, str | None]:
        """Get an item, which must be one of those possible, and return its ETag."""
        response = connection.request("GET", f"/v1/items/{quote(item_id)}")
        if response.status not in (200, 404):
            raise self._failure(item_id, "could not be read", response)
        found = response.headers["etag"] if response.status == 200 else None
        possible = self._models[item_id].possible(item_id)
        state = next((state for state in possible if tag(state) == found), None)
        if found not in [tag(each) for each in possible]:
            kinds = "is lost" if found is None else "is deleted, but there" if possible == [None] else "is another"
            raise self._failure(item_id, kinds, response)
        if state is not None and response.json["metadata"] != state.metadata:
            raise self._failure(item_id, "has other metadata than its ETag says", response)
        if state is not None and (response.json["thumbnail_url"] is None) != (state.thumbnail is None):
            raise self._failure(item_id, "has a thumbnail, or has none, against its last write", response)
        return item_id, found

    def _thumbnail(self, connection: Connection, item_id: str) -> None:
        response = connection.request("GET", f"/v1/items/{quote(item_id)}/thumbnail")
        state = self._state(item_id)
        assert state is not None
        if response.status != 200 or response.body != state.thumbnail:
            raise self._failure(item_id, "has another thumbnail", response)

    def _search(self, connection: Connection, random: Random) -> None:
        """Search everything: each item once, with the metadata and the vector of its last write."""
        embedding = random_embedding(random)
        query = {"query": {"embedding": embedding}, "limit": _LIMIT, "include": ["embedding"]}
        response = connection.expect("POST", "/v1/search", query)
        results = response.json["results"]
        living = self._living()
        self._same_ids([each["id"] for each in results], living, "a search", response)
        for each in results:
            state = living[each["id"]]
            unit = normalized_rows(state.vector[None])[0]
            if each["metadata"] != state.metadata:
                raise self._failure(each["id"], f"is found with the metadata {each['metadata']}", response)
            if not np.allclose(each["embedding"], unit, rtol=0, atol=_TOLERANCE):
                raise self._failure(each["id"], f"is found with the vector {each['embedding']}", response)
            if abs(each["score"] - float(unit @ np.asarray(embedding))) > _TOLERANCE:
                raise self._failure(each["id"], f"is found with the score {each['score']}", response)
        self.items += len(results)

    def _lists(self, connection: Connection) -> None:
        living = self._living()
        response = connection.expect("GET", f"/v1/items?limit={_LIMIT}&fields=color")
        self._same_ids([each["id"] for each in response.json["items"]], living, "the list of items", response)
        count = connection.expect("POST", "/v1/count", {}).json["count"]
        name = response.json["collection"]
        facts = connection.expect("GET", f"/v1/collections/{name}").json["items"]
        if not response.json["total"] == count == facts == len(living):
            raise Failure(f"{response.json['total']}, {count} and {facts} items are counted, not {len(living)}")

    def _facets(self, connection: Connection) -> None:
        response = connection.expect("POST", "/v1/facets", {"fields": ["color"], "limit": 1_000})
        found = {each["value"]: each["count"] for each in response.json["fields"][0]["values"]}
        expected = Counter(state.record["color"] for state in self._living().values() if "color" in state.record)
        if found != dict(expected):
            raise Failure(f"the facets of color are {found}, not {dict(expected)}")

    def _same_ids(self, found: list[str], living: Iterable[str], where: str, response: Response) -> None:
        expected = set(living)
        for item_id, count in Counter(found).items():
            if count > 1:
                raise self._failure(item_id, f"is {count} times in {where}", response)
        for item_id in set(found) - expected:
            if item_id not in self._models:
                raise Failure(f"{item_id} was never written, but is in {where}")
            raise self._failure(item_id, f"is deleted, but in {where}", response)
        for item_id in expected - set(found):
            raise self._failure(item_id, f"is missing in {where}", response)

    def _failure(self, item_id: str, what: str, response: Response) -> Failure:
        model = self._models[item_id]
        possible = " or ".join("no item" if each is None else each.tag for each in model.possible(item_id))
        return Failure(
            f"item {item_id} {what}: it must be {possible}\n"
            f"  {response.status} {response.headers.get('etag')} {response.body[:400]!r}\n"
            f"  history:\n{model.history(item_id)}"
        )


def _in_threads(port: int, ids: list[str], check: Callable[[Connection, str], Any]) -> list[Any]:
    """Return the results for ids, checked over a few connections. Raises the first failure."""
    results: list[Any] = []
    failures: list[Exception] = []

    def run(part: list[str]) -> None:
        connection = Connection(port)
        try:
            results.extend([check(connection, item_id) for item_id in part])
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(ids[start::_THREADS],)) for start in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
