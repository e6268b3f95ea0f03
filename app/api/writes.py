"""PUT, PATCH and DELETE /v1/items/{id}, POST /v1/items/batch and /v1/items/delete: durable before the response."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, get_args
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Request
from pydantic import ValidationError
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import ServiceDep
from app.api.forms import FORM, read_form
from app.api.image_inputs import read_image
from app.api.items import ItemId
from app.api.openapi import (
    ACCESS,
    ADMISSION,
    BODY,
    IMAGE,
    IMAGE_FILE,
    FormField,
    errors,
    form_body,
    json_body,
    raw_body,
    request_body,
)
from app.api.parameters import parameter
from app.api.request_admission import Admission, Slot, admitted
from app.api.request_bodies import Base64Image, ImageUrl, body_error, is_json, media_type, read_json
from app.api.routing import CollectionRouter
from app.api.write_schemas import (
    CreatedResponse,
    DeletedResponse,
    DeleteItems,
    DeleteItemsResponse,
    PatchedResponse,
    PatchItem,
    PutItem,
    ReplacedResponse,
    WriteBatch,
    WriteBatchResponse,
    WriteOperation,
)
from app.auth.authentication import require_role
from app.collections.hosted import HostedCollection
from app.errors import INTERNAL_ERROR, MediaTypeUnsupported, ReadOnly, RequestError, is_client_error
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import ImageQuery, QueryPipeline
from app.middleware.problems import problem_of
from lookalike.errors import (
    CollectionUnwritable,
    DiskFull,
    FilterInvalid,
    IdInvalid,
    LookalikeError,
    MetadataInvalid,
    PendingFull,
    PreconditionFailed,
    QueryError,
    UnknownItem,
)
from lookalike.query import unit_embedding
from lookalike.writes.item_ids import valid_id
from lookalike.writes.operations import Delete, Operation, Outcome, Patch, Precondition, Put, Result, Written

logger = logging.getLogger(__name__)

_WRITE = (*ACCESS, *ADMISSION, ReadOnly, CollectionUnwritable, DiskFull)
_ONE = (PreconditionFailed, QueryError)
_MAX_JSON_VALUES = 1_100_000
"""Values of a batch: 1,000 embeddings of 1,024 numbers."""
_WINDOW = 64
"""Operations of one batch that are prepared at a time."""


async def _hosted(request: Request, service: ServiceDep) -> HostedCollection:
    """Return the collection of the path, opened and writable; raise ReadOnly before a body is read."""
    name = request.path_params.get("name")
    await service.collections.pipeline(name)
    hosted = service.collections.find(name)
    hosted.require_writes()
    return hosted


HostedDep = Annotated[HostedCollection, Depends(_hosted)]

router = CollectionRouter(tags=["writes"], dependencies=[Depends(require_role("write"))])


def _headers(*names: str) -> list[dict[str, Any]]:
    texts = {
        "If-Match": "Write only if the item has one of these ETags; `*` for any item.",
        "If-None-Match": "Write only if the item has none of these ETags; `*` if there is no such item.",
    }
    return [{"name": name, "in": "header", "description": texts[name], "schema": {"type": "string"}} for name in names]


_METADATA = "Metadata as JSON: values by column."
_PUT: dict[str, Any] = {
    **request_body(
        form_body(
            {
                "file": FormField("binary", "The image file.", IMAGE_FILE),
                "metadata": FormField("string", _METADATA, '{"brand": "acme"}'),
            },
            ["file"],
        ),
        json_body(PutItem),
        raw_body(),
    ),
    "parameters": [
        parameter("metadata", f"{_METADATA} For a body that is an image file."),
        *_headers("If-Match", "If-None-Match"),
    ],
}


@router.put(
    "/items/{item_id:path}",
    response_model=CreatedResponse,
    status_code=HTTPStatus.CREATED,
    responses={
        **errors(*_WRITE, *BODY, *IMAGE, *_ONE, IdInvalid, MetadataInvalid, PendingFull),
        200: {"model": ReplacedResponse, "description": "The item was replaced."},
    },
    openapi_extra=_PUT,
    summary="Add or replace an item",
)
@admitted("image")
async def put_item(item_id: ItemId, request: Request, hosted: HostedDep, service: ServiceDep) -> Response:
    """Add an item, or put it in place of the one with its id. Needs the role `write`.

    Send the image as the body itself, as the file `file` of a form, or in JSON as base64 or a URL; or an embedding in
    JSON. Metadata replaces that of the item before; `width`, `height` and `format` are measured on the image.

    The response is sent once the item is on the disk. The next search finds it.
    """
    _require_utf8(request)
    if hosted.pipeline.searcher.collection.metadata.find(item_id) is None:
        valid_id(item_id)
    source, metadata = await _read_item(request)
    operation = await _put(
        item_id, source, metadata, _precondition_of(request), hosted, service.fetcher, request.state.admission
    )
    return await _written(await _apply_one(hosted, operation), hosted, request)


@router.patch(
    "/items/{item_id:path}",
    response_model=PatchedResponse,
    responses=errors(*_WRITE, *BODY, *_ONE, UnknownItem, MetadataInvalid, PendingFull),
    openapi_extra={**request_body(json_body(PatchItem)), "parameters": _headers("If-Match", "If-None-Match")},
    summary="Change an item's metadata",
)
@admitted("write")
async def patch_item(item_id: ItemId, request: Request, hosted: HostedDep) -> Response:
    """Merge metadata into an item's (RFC 7396): null removes a value, and columns that are not named stay.

    Needs the role `write`. The response is sent once the change is on the disk.
    """
    body = await read_json(request, PatchItem)
    operation = Patch(item_id, body.metadata, _precondition_of(request))
    return await _written(await _apply_one(hosted, operation), hosted, request)


@router.delete(
    "/items/{item_id:path}",
    response_model=DeletedResponse,
    responses=errors(*_WRITE, *_ONE, UnknownItem),
    openapi_extra={"parameters": _headers("If-Match", "If-None-Match")},
    summary="Delete an item",
)
@admitted("write")
async def delete_item(item_id: ItemId, request: Request, hosted: HostedDep) -> Response:
    """Delete an item. Needs the role `write`.

    The response is sent once the deletion is on the disk. No later search finds the item.
    """
    operation = Delete(item_id, _precondition_of(request))
    written = await _apply_one(hosted, operation)
    body = {"id": written.id, "result": written.result, "etag": None, **responses.source(hosted.pipeline)}
    return responses.json_response(body)


@router.post(
    "/items/batch",
    response_model=WriteBatchResponse,
    responses=errors(*_WRITE, *BODY),
    openapi_extra=request_body(json_body(WriteBatch)),
    summary="Write several items",
)
@admitted("write")
async def write_batch(request: Request, hosted: HostedDep, service: ServiceDep) -> Response:
    """Apply up to 1,000 operations in order. Needs the role `write`.

    Each has its own result, or its own problem document: one that fails changes nothing and stops no other. The
    response is sent once all of them are on the disk. A body has at most `LOOKALIKE_MAX_BODY_BYTES`, and 1,100,000
    values of JSON.
    """
    body = await read_json(request, WriteBatch, _MAX_JSON_VALUES)
    parsed = [_parse(operation) for operation in body.operations]
    admission: Admission = request.state.admission
    prepared = await _prepare_all(parsed, hosted, service.fetcher, admission)
    operations = [each for each in prepared if not isinstance(each, Exception)]
    outcomes = iter(await hosted.require_writes().apply(operations))
    final = [each if isinstance(each, Exception) else next(outcomes) for each in prepared]
    results = [await _result(request, given, outcome) for given, outcome in zip(body.operations, final, strict=True)]
    counts = Counter(each.result if isinstance(each, Written) else "failed" for each in final)
    return responses.json_response(
        {
            "results": results,
            "counts": {name: counts[name] for name in (*get_args(Result), "failed")},
            **responses.source(hosted.pipeline),
        }
    )


@router.post(
    "/items/delete",
    response_model=DeleteItemsResponse,
    responses=errors(*_WRITE, *BODY, FilterInvalid),
    openapi_extra=request_body(json_body(DeleteItems)),
    summary="Delete items by a filter",
)
@admitted("write")
async def delete_items(request: Request, hosted: HostedDep) -> Response:
    """Delete all items that pass a filter. Needs the role `write`. With `dry_run`, they are only counted.

    Nothing is deleted unless all are.
    """
    body = await read_json(request, DeleteItems)
    if not (body.filter.must or body.filter.should or body.filter.must_not):
        raise FilterInvalid("filter: it has no condition, and would delete every item; give at least one")
    if body.dry_run:
        table = hosted.pipeline.searcher.table
        count = await hosted.pipeline.run_in_pool(lambda: table.count(body.filter))
    else:
        count = await hosted.require_writes().delete_matching(body.filter)
    return responses.json_response({"count": count, "dry_run": body.dry_run, **responses.source(hosted.pipeline)})


# Reading


def _require_utf8(request: Request) -> None:
    """Reject an id of bytes that are not UTF-8, which the server replaces. Raises IdInvalid."""
    path = request.scope.get("raw_path", b"")
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise IdInvalid(f"the id in {path.decode('latin-1')} is not UTF-8; encode it as UTF-8, then by %") from error


async def _read_item(request: Request) -> tuple[ImageQuery | Base64Image | ImageUrl | list[float], Mapping[str, Any]]:
    """Return what an item is made of, and its metadata.

    Raises:
        MediaTypeUnsupported, JsonInvalid, FormInvalid, RequestError: the body can't be read.
        MetadataInvalid: the metadata of a form or of the query string is no JSON object.
    """
    kind = media_type(request)
    given = request.query_params.get("metadata")
    if kind == FORM:
        form = await read_form(request, files=["file"], texts=["metadata"])
        if "file" not in form.files:
            raise RequestError("the form has no part named 'file'; send the image as that")
        return ImageQuery(form.files["file"][0]), _metadata(form.texts.get("metadata"), given)
    if is_json(kind):
        body = await read_json(request, PutItem)
        if given is not None:
            raise RequestError("metadata is in the query string; a body of JSON has it itself")
        return body.image_source or body.embedding or [], body.metadata
    if kind.startswith("image/") or kind == "application/octet-stream":
        return ImageQuery(await request.body()), _metadata(None, given)
    raise MediaTypeUnsupported(f"Content-Type is {kind or 'missing'}; send {FORM}, image/* or application/json")


def _metadata(in_form: str | None, in_query: str | None) -> Mapping[str, Any]:
    if in_form is not None and in_query is not None:
        raise RequestError("metadata is in the query string and in the form; give it once")
    text = in_query if in_form is None else in_form
    if text is None:
        return {}
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetadataInvalid(f"metadata is not valid JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise MetadataInvalid(f"metadata is {type(metadata).__name__}; write it as an object of values by column")
    return metadata


def _precondition_of(request: Request) -> Precondition:
    return _precondition(request.headers.get("if-match"), request.headers.get("if-none-match"))


def _precondition(if_match: str | None, if_none_match: str | None) -> Precondition:
    return Precondition(_tags(if_match), _tags(if_none_match))


def _tags(header: str | None) -> frozenset[str] | None:
    """Return the tags of a header; weak ones compare like strong ones, since items have no others."""
    if header is None:
        return None
    return frozenset(tag.strip().removeprefix("W/") for tag in header.split(","))


def _parse(operation: object) -> WriteOperation | LookalikeError:
    try:
        return WriteOperation.model_validate(operation)
    except ValidationError as error:
        return body_error(error, WriteOperation)


# Preparing


async def _put(
    item_id: str,
    source: ImageQuery | Base64Image | ImageUrl | Sequence[float],
    metadata: Mapping[str, Any],
    precondition: Precondition,
    hosted: HostedCollection,
    fetcher: ImageFetcher,
    slot: Slot,
) -> Put:
    """Return the operation that puts an item, with its image decoded and encoded.

    Raises:
        ImageError, Base64Invalid, UrlDisabled, UrlRefused, UrlFailed: there is no readable image.
        QueryError: the embedding does not fit the collection.
    """
    pipeline = hosted.pipeline
    if isinstance(source, Base64Image | ImageUrl):
        source = await read_image(source, pipeline, fetcher, slot)
    if not isinstance(source, ImageQuery):
        vector, _ = unit_embedding(source, pipeline.searcher.encoder.spec.dim, "embedding")
        return Put(item_id, vector, metadata, precondition=precondition)
    image, vector = await pipeline.prepare_item(source.data)
    return Put(item_id, vector, metadata, image.measured, image.thumbnail, image.content_hash, precondition)


async def _prepare_all(
    parsed: Sequence[WriteOperation | LookalikeError],
    hosted: HostedCollection,
    fetcher: ImageFetcher,
    admission: Admission,
) -> list[Operation | Exception]:
    """Return the operations of a batch, their images encoded some at a time, or the error of each that has one."""
    images = [each for each in parsed if isinstance(each, WriteOperation) and each.image_source is not None]
    admission.admit_inputs(["image"] if images else ["write"])
    prepared: list[Operation | Exception] = [RuntimeError("not prepared")] * len(parsed)
    positions = iter(range(len(parsed)))

    async def prepare_next() -> None:
        for position in positions:
            each = parsed[position]
            if isinstance(each, LookalikeError):
                prepared[position] = each
                continue
            prepared[position] = await _prepare(each, hosted, fetcher, admission)
            if each.image_source is not None:
                admission.restart_deadline()

    await asyncio.gather(*(prepare_next() for _ in range(min(_WINDOW, len(parsed)))))
    return prepared


async def _prepare(
    operation: WriteOperation, hosted: HostedCollection, fetcher: ImageFetcher, admission: Admission
) -> Operation | Exception:
    precondition = _precondition(operation.if_match, operation.if_none_match)
    if operation.op == "delete":
        return Delete(operation.id, precondition)
    if operation.op == "patch":
        return Patch(operation.id, operation.metadata or {}, precondition)
    source = operation.image_source or operation.embedding or []
    slot = admission.input_slot("image" if operation.image_source is not None else "write")
    client_error = completed = False
    try:
        metadata = operation.metadata or {}
        put = await _put(operation.id, source, metadata, precondition, hosted, fetcher, slot)
        completed = True
        return put
    except Exception as error:
        client_error = is_client_error(error)
        return error
    finally:
        slot.finish(completed=completed, client_error=client_error)


# Responding


async def _apply_one(hosted: HostedCollection, operation: Operation) -> Written:
    """Apply one operation; raise the error for which it is refused."""
    outcome = (await hosted.require_writes().apply([operation]))[0]
    if isinstance(outcome, LookalikeError):
        raise outcome
    return outcome


async def _written(written: Written, hosted: HostedCollection, request: Request) -> Response:
    """Return the response to a put or a patch: the item as a later search finds it."""
    pipeline = hosted.pipeline
    body = {
        "id": written.id,
        "result": written.result,
        "etag": written.tag,
        "metadata": {name: value for name, value in (written.record or {}).items() if name != "id"},
        "thumbnail_url": _thumbnail_url(written, pipeline, request),
        **responses.source(pipeline),
    }
    status = HTTPStatus.CREATED if written.result == "created" else HTTPStatus.OK
    return responses.json_response(body, status, {"ETag": written.tag or ""})


def _thumbnail_url(written: Written, pipeline: QueryPipeline, request: Request) -> str | None:
    try:
        row = pipeline.searcher.collection.metadata.row_of(written.id)
    except UnknownItem:  # deleted in the meantime
        return None
    return responses.thumbnail_url(written.id, row, pipeline, request)


async def _result(request: Request, given: object, outcome: Outcome | Exception) -> dict[str, Any]:
    """Return the result of one operation of a batch, or its id and problem document."""
    if isinstance(outcome, Written):
        return {"id": outcome.id, "result": outcome.result, "etag": outcome.tag}
    problem = problem_of(outcome, request.scope)
    request.app.state.service.telemetry.count_error(problem.code)
    if problem.code == INTERNAL_ERROR:
        logger.error("an operation of a batch failed", exc_info=outcome)
    item_id = given.get("id") if isinstance(given, dict) else None
    return {"id": item_id if isinstance(item_id, str) else None, **problem.document(request.scope["path"])}
