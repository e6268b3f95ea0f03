"""The calls that change the items of a collection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import httpx

from lookalike_client.call import Call, read_json, record
from lookalike_client.calls import MAX_FIELD_BYTES, item_path
from lookalike_client.errors import ApiError, LookalikeError, error_of_problem
from lookalike_client.images import image_bytes
from lookalike_client.operations import (
    Delete,
    Operation,
    Patch,
    Put,
    conditions,
    content,
    is_repeatable,
    loaded,
    operation_body,
)
from lookalike_client.results import DeletedItems, WrittenItem, parse

_MAX_OPERATIONS = 1_000
"""Operations of a request, at most as many as the service takes."""
_MAX_IMAGES = 64
"""Operations of a request whose image the service decodes and encodes: its response must come within the timeout."""
_MAX_BODY_BYTES = 4 << 20
_STATUSES_OF_ITEMS = (400, 412, 413, 415, 422)
"""What is wrong with an item; other errors, such as 401 or 503, would meet every item."""
_HEADERS = {"if_match": "If-Match", "if_none_match": "If-None-Match"}


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """Operations that are sent together, or one that is too large for that.

    Attributes:
        call: the call.
        single: whether it writes one item by itself, so that an error of the call is that of the item.
    """

    call: Call[list[WrittenItem | ApiError]]
    single: bool = False


def write_item(base: str, operation: Put | Patch | Delete) -> Call[WrittenItem]:
    """Write one item."""
    path = item_path(base, operation.id)
    if path is None:  # an operation of a batch has its id in the body, which carries any
        request = _batch(base, [operation_body(operation)], is_repeatable(operation))
        return Call(
            method="POST", path=request.path, read=_read_single, json=request.json, repeatable=request.repeatable
        )
    method = "PUT" if isinstance(operation, Put) else "PATCH" if isinstance(operation, Patch) else "DELETE"
    options: dict[str, Any] = {"method": method, "path": path, "read": record(WrittenItem)}
    if given := conditions(operation):
        options["headers"] = {_HEADERS[name]: value for name, value in given.items()}
    return Call(**options, **_body(operation), repeatable=is_repeatable(operation))


def requests(base: str, operations: Iterable[Operation]) -> Iterator[WriteRequest]:
    """Yield the requests that write items, in order; files are read as their requests come."""
    batch: list[Put | Patch | Delete] = []
    size = images = 0
    for operation in map(loaded, operations):
        length, encoded = _json_size(operation), isinstance(operation, Put) and operation.embedding is None
        full = len(batch) == _MAX_OPERATIONS or size + length > _MAX_BODY_BYTES or images + encoded > _MAX_IMAGES
        if batch and full:
            yield _request(base, batch)
            batch, size, images = [], 0, 0
        batch.append(operation)
        size, images = size + length, images + encoded
    if batch:
        yield _request(base, batch)


def results_of_failure(
    error: LookalikeError, request: WriteRequest, results: list[WrittenItem | ApiError]
) -> list[WrittenItem | ApiError]:
    """Return the results of a request that failed: of a single operation, its error.

    Raises:
        LookalikeError: the error, with the results of the requests before.
    """
    if request.single and isinstance(error, ApiError) and error.status in _STATUSES_OF_ITEMS:
        return [error]
    error.results = results
    raise error


def delete_items(base: str, condition: Mapping[str, Any], dry_run: bool) -> Call[DeletedItems]:
    """Delete the items that pass a filter."""
    body = {"filter": dict(condition), "dry_run": dry_run}
    # Sent again after it took effect, it would count the items that are left: none.
    return Call(method="POST", path=f"{base}/items/delete", read=record(DeletedItems), json=body, repeatable=dry_run)


def _body(operation: Put | Patch | Delete) -> dict[str, Any]:
    """Return the body of a request for one item, as arguments of its call."""
    if isinstance(operation, Delete):
        return {}
    if isinstance(operation, Put) and operation.image is not None:
        metadata = "" if operation.metadata is None else json.dumps(dict(operation.metadata), allow_nan=False)
        if len(metadata) <= MAX_FIELD_BYTES:  # a third smaller than JSON with base64
            return {
                "files": {"file": image_bytes(operation.image)},
                "data": {"metadata": metadata} if metadata else None,
            }
    return {"json": content(operation)}


def _request(base: str, operations: Sequence[Put | Patch | Delete]) -> WriteRequest:
    if len(operations) == 1 and _json_size(operations[0]) > _MAX_BODY_BYTES:
        # The service limits the body, and JSON would be a third larger.
        return WriteRequest(_as_list(write_item(base, operations[0])), single=True)
    repeatable = all(map(is_repeatable, operations))
    return WriteRequest(_batch(base, [operation_body(each) for each in operations], repeatable))


def _as_list(call: Call[WrittenItem]) -> Call[list[WrittenItem | ApiError]]:
    given = {field.name: getattr(call, field.name) for field in fields(call) if field.name != "read"}
    return Call(**given, read=lambda response: [call.read(response)])


def _json_size(operation: Put | Patch | Delete) -> int:
    """Return how many bytes an operation has in JSON, about."""
    if isinstance(operation, Put) and isinstance(operation.image, bytes):
        return 4 * len(operation.image) // 3 + _json_size(replace(operation, image=None, image_url=operation.id))
    return len(json.dumps(operation_body(operation)))


def _batch(base: str, bodies: list[dict[str, Any]], repeatable: bool) -> Call[list[WrittenItem | ApiError]]:
    path = f"{base}/items/batch"
    return Call(method="POST", path=path, read=_read_results, json={"operations": bodies}, repeatable=repeatable)


def _read_results(response: httpx.Response) -> list[WrittenItem | ApiError]:
    body = parse(dict[str, Any], read_json(response))
    source = {name: body.get(name) for name in ("collection", "version", "encoder")}
    entries = parse(list[dict[str, Any]], body.get("results"))
    return [error_of_problem(each) if "code" in each else parse(WrittenItem, {**source, **each}) for each in entries]


def _read_single(response: httpx.Response) -> WrittenItem:
    (result,) = _read_results(response)
    if isinstance(result, ApiError):
        raise result
    return result
