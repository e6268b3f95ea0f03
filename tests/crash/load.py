"""A client that writes to its own items, one request after the other, and knows what each of them must be."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote

from tests.crash.collection import COLORS, image_file, of_embedding, of_image, random_embedding
from tests.crash.failure import Failure
from tests.crash.model import ClientModel, ItemState, States, tag
from tests.crash.service import Connection, Response

_MAX_BATCH = 12
_PROBLEMS = {404: "unknown_item", 412: "precondition_failed"}


class Client:
    """Sends requests until the service is killed.

    Attributes:
        name: the client's name.
        failure: what was wrong, None if nothing was.
        version: the last one that a response named.
        is_stopped: whether it must stop after its request.
        is_cut_off: whether it has lost its connection.
    """

    def __init__(self, model: ClientModel, port: int, seed: str) -> None:
        self.name = model.client
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.failure: Exception | None = None
        self.version = ""
        self.is_stopped = False
        self.is_cut_off = False
        self._model = model
        self._ids = sorted(model.states)
        self._connection = Connection(port)
        self._random = Random(seed)
        self._requests: list[tuple[int, Callable[[], None]]] = [
            (24, self._put_image),
            (24, self._put_embedding),
            (16, self._patch),
            (10, self._delete),
            (10, self._batch),
            (2, self._delete_matching),
            (10, self._get),
            (4, self._search),
        ]
        self._numbers = 0
        self._seed = seed

    def start(self) -> None:
        """Begin to send requests."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the last request has ended."""
        self._thread.join()

    def _run(self) -> None:
        weights = [weight for weight, _ in self._requests]
        try:
            while not self.is_stopped:
                self._random.choices(self._requests, weights)[0][1]()
        except (OSError, http.client.HTTPException):
            self.is_cut_off = True
        except Exception as error:
            self.failure = error
        finally:
            self._connection.close()

    # Requests

    def _put_image(self) -> None:
        item_id, number = self._any_id(), self._random.randrange(10_000)
        metadata = self._metadata()
        after = of_image(item_id, number, metadata)
        body = {"image": base64.b64encode(image_file(number)).decode(), "metadata": metadata}
        self._put(item_id, after, body, "image")

    def _put_embedding(self) -> None:
        item_id, embedding, metadata = self._any_id(), random_embedding(self._random), self._metadata()
        self._put(
            item_id,
            of_embedding(item_id, embedding, metadata),
            {"embedding": embedding, "metadata": metadata},
            "embedding",
        )

    def _put(self, item_id: str, after: ItemState, body: dict[str, Any], kind: str) -> None:
        before = self._model.states[item_id]
        headers, refused = self._precondition(before, for_put=True)
        response = self._write("PUT", _path(item_id), body, {} if refused else {item_id: after}, f"put {kind}", headers)
        if refused:
            self._expect(response, 412)
            return
        self._expect(response, 201 if before is None else 200)
        self._equal(response.json["etag"], after.tag, response)
        self._equal(response.json["metadata"], after.metadata, response)

    def _patch(self) -> None:
        item_id = self._any_id()
        before, changes = self._model.states[item_id], self._changes()
        headers, refused = self._precondition(before, for_put=False)
        after = None if before is None else before.patched(changes)
        missing = before is None
        changed: States = {} if missing or refused else {item_id: after}
        response = self._write("PATCH", _path(item_id), {"metadata": changes}, changed, f"patch {changes}", headers)
        self._expect(response, 404 if missing else 412 if refused else 200)
        if after is not None and not refused:
            self._equal(response.json["etag"], after.tag, response)

    def _delete(self) -> None:
        item_id = self._any_id()
        before = self._model.states[item_id]
        headers, refused = self._precondition(before, for_put=False)
        changed: States = {} if before is None or refused else {item_id: None}
        response = self._write("DELETE", _path(item_id), None, changed, "delete", headers)
        self._expect(response, 404 if before is None else 412 if refused else 200)

    def _batch(self) -> None:
        """Send operations, several on one item among them, of which some are refused."""
        operations: list[dict[str, Any]] = []
        expected: list[tuple[str, str | None] | int] = []
        after: States = {}
        for _ in range(self._random.randint(2, _MAX_BATCH)):
            item_id = self._any_id()
            before = after.get(item_id, self._model.states[item_id])
            kind = self._random.choice(("image", "embedding", "patch", "delete"))
            operation: dict[str, Any] = {"op": "put", "id": item_id, "metadata": self._metadata()}
            state: ItemState | None = None
            if kind == "image":
                number = self._random.randrange(10_000)
                operation["image"] = base64.b64encode(image_file(number)).decode()
                state = of_image(item_id, number, operation["metadata"])
            elif kind == "embedding":
                operation["embedding"] = random_embedding(self._random)
                state = of_embedding(item_id, operation["embedding"], operation["metadata"])
            elif kind == "patch":
                operation = {"op": "patch", "id": item_id, "metadata": self._changes()}
                state = None if before is None else before.patched(operation["metadata"])
            else:
                operation = {"op": "delete", "id": item_id}
            operations.append(operation)
            if before is None and kind in ("patch", "delete"):
                expected.append(404)
                continue
            put = "created" if before is None else "replaced"
            result = {"patch": "patched", "delete": "deleted"}.get(kind, put)
            expected.append((result, tag(state)))
            after[item_id] = state
        what = f"batch of {[(each['op'], each['id']) for each in operations]}"
        response = self._write("POST", "/v1/items/batch", {"operations": operations}, after, what, {})
        self._expect(response, 200)
        results = [
            each["status"] if "status" in each else (each["result"], each["etag"]) for each in response.json["results"]
        ]
        self._equal(results, expected, response)

    def _delete_matching(self) -> None:
        least = self._random.randrange(6, 10)
        matching: States = {
            item_id: None
            for item_id, state in self._model.states.items()
            if state is not None and state.record.get("client") == self._model.client
            if (state.record.get("stock") or -1) >= least
        }
        conditions = [
            {"field": "client", "equals": self._model.client},
            {"field": "stock", "range": {"gte": least}},
        ]
        if not any(state is not None and "stock" in state.record for state in self._model.states.values()):
            return  # the column may not exist yet
        body = {"filter": {"must": conditions}}
        response = self._write("POST", "/v1/items/delete", body, matching, f"delete stock >= {least}", {})
        self._expect(response, 200)
        self._equal(response.json["count"], len(matching), response)

    def _get(self) -> None:
        item_id = self._any_id()
        response = self._connection.request("GET", _path(item_id))
        state = self._model.states[item_id]
        self._expect(response, 404 if state is None else 200)
        if state is not None:
            self._equal(response.headers["etag"], state.tag, response, item_id)
            self._equal(response.json["metadata"], state.metadata, response, item_id)

    def _search(self) -> None:
        """Search by an item's own embedding: it is found with its last metadata, and once."""
        item_id = self._any_id()
        state = self._model.states[item_id]
        if state is None:
            return
        query = {"embedding": [float(each) for each in state.vector]}
        response = self._connection.request("POST", "/v1/search", {"query": query, "limit": 50})
        self._expect(response, 200)
        found = [each for each in response.json["results"] if each["id"] == item_id]
        self._equal([each["metadata"] for each in found], [state.metadata], response, item_id)

    # Parts

    def _any_id(self) -> str:
        return self._random.choice(self._ids)

    def _metadata(self) -> dict[str, Any]:
        """Return metadata of a put, with a token that no other write has."""
        self._numbers += 1
        metadata: dict[str, Any] = {
            "client": self._model.client,
            "token": f"{self._seed}-{self._numbers}",
            "color": self._random.choice(COLORS),
            "price": self._random.randrange(1_000),
        }
        if self._random.random() < 0.5:
            metadata["stock"] = self._random.randrange(1, 10)
        if self._random.random() < 0.3:
            metadata["tags"] = self._random.sample(COLORS, 2)
        if self._random.random() < 0.3:
            metadata["size"] = {"eu": self._random.randrange(36, 48), "us": self._random.randrange(5, 14)}
        return metadata

    def _changes(self) -> dict[str, Any]:
        self._numbers += 1
        possible: list[dict[str, Any]] = [
            {"token": f"{self._seed}-{self._numbers}"},
            {"price": self._random.randrange(1_000)},
            {"price": None},
            {"stock": self._random.randrange(1, 10), "client": self._model.client},
            {"color": self._random.choice(COLORS), "tags": self._random.sample(COLORS, 1)},
            {"tags": None, "stock": None},
        ]
        return self._random.choice(possible)

    def _precondition(self, before: ItemState | None, *, for_put: bool) -> tuple[dict[str, str], bool]:
        """Return headers that most requests do not have, and whether the write must be refused for them."""
        chance = self._random.random()
        if chance < 0.1 and for_put:
            return {"If-None-Match": "*"}, before is not None
        if chance < 0.2 and before is not None:
            return {"If-Match": before.tag}, False
        if chance < 0.25 and before is not None:
            return {"If-Match": '"0123456789abcdef01234567"'}, True
        return {}, False

    def _write(self, method: str, path: str, body: Any, after: States, what: str, headers: dict[str, str]) -> Response:
        """Send a write, and record whether its response arrived."""
        self._numbers += 1
        what = f"{self._seed} #{self._numbers} {what}"
        try:
            response = self._connection.request(method, path, body, headers)
        except ConnectionRefusedError:
            raise
        except (OSError, http.client.HTTPException):
            self._model.lose(after, what)
            raise
        if response.status < 300:
            self._model.acknowledge(after, what)
            self.version = response.json["version"]
        return response

    def _expect(self, response: Response, status: int) -> None:
        if response.status != status or (status in _PROBLEMS and response.json["code"] != _PROBLEMS[status]):
            raise Failure(f"{self.name} expected {status}: {response.status} {response.body[:1_000]!r}")

    def _equal(self, found: Any, expected: Any, response: Response, item_id: str = "") -> None:
        if found != expected:
            history = f"\n  history of {item_id}:\n{self._model.history(item_id)}" if item_id else ""
            raise Failure(
                f"{self.name} found\n  {found}\nexpected\n  {expected}\nin {response.body[:2_000]!r}{history}"
            )


def _path(item_id: str) -> str:
    return f"/v1/items/{quote(item_id)}"
