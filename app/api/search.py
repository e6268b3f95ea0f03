"""POST /v1/search/text, /v1/search/image and /v1/search/item."""

from __future__ import annotations

import time
from dataclasses import replace

from fastapi import Depends, Request
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import PipelineDep, ServiceDep
from app.api.image_inputs import read_image
from app.api.openapi import (
    ACCESS,
    ADMISSION,
    BODY,
    IMAGE,
    IMAGE_FILE,
    OPTIONS,
    TEXT,
    FormField,
    errors,
    form_body,
    json_body,
    raw_body,
    request_body,
)
from app.api.request_admission import admitted
from app.api.request_bodies import FORM, Base64Image, ImageUrl, is_json, media_type, parse_whole, read_form, read_json
from app.api.routing import CollectionRouter
from app.api.schemas import (
    DEFAULT_LIMIT,
    OPTION_NAMES,
    ImageSearch,
    ItemSearch,
    SearchResponse,
    TextSearch,
    parse_options,
)
from app.auth.authentication import require_role
from app.errors import MediaTypeUnsupported, RateLimited, RequestError
from app.execution.pipeline import ImageQuery, ItemQuery, Query, QueryPipeline, TextQuery
from lookalike.errors import UnknownItem
from lookalike.row_search import SearchOptions

router = CollectionRouter(tags=["search"], dependencies=[Depends(require_role("read", rate_limited=True))])

_LIMIT = "Number of items to return, at most `LOOKALIKE_MAX_RESULTS`."
_FILTER = "A `Filter` as JSON text. Only items that pass it are found."
_PARAMS = "A `Params` object as JSON text: how thoroughly to search."
_PARAMETERS = [
    {
        "name": "limit",
        "in": "query",
        "description": f"{_LIMIT} A form or JSON may have it instead.",
        "schema": {"type": "integer", "minimum": 1, "default": DEFAULT_LIMIT},
    },
    {
        "name": "filter",
        "in": "query",
        "description": f"{_FILTER} A form or JSON may have it instead.",
        "schema": {"type": "string"},
    },
    {
        "name": "params",
        "in": "query",
        "description": f"{_PARAMS} A form or JSON may have it instead.",
        "schema": {"type": "string"},
    },
]
_FORM = {
    "file": FormField("binary", "The image file, with a filename.", IMAGE_FILE),
    "limit": FormField("integer", f"{_LIMIT} {DEFAULT_LIMIT} by default.", 2),
    "filter": FormField("string", _FILTER),
    "params": FormField("string", _PARAMS),
}
_ERRORS = (*ACCESS, *ADMISSION, *BODY, *OPTIONS, RateLimited)


@router.post(
    "/search/text",
    response_model=SearchResponse,
    responses=errors(*_ERRORS, *TEXT),
    openapi_extra=request_body(json_body(TextSearch)),
    summary="Search by text",
)
@admitted("text")
async def search_text(request: Request, pipeline: PipelineDep) -> Response:
    """Find the images that match a text best.

    The collection's encoder must support text: `text` is true in the collection's entry of `GET /v1/collections`.
    """
    body = await read_json(request, TextSearch)
    return await _respond(request, pipeline, TextQuery(body.text), body.options, time.perf_counter())


@router.post(
    "/search/image",
    response_model=SearchResponse,
    responses=errors(*_ERRORS, *IMAGE),
    openapi_extra={
        **request_body(form_body(_FORM, ["file"]), json_body(ImageSearch), raw_body()),
        "parameters": _PARAMETERS,
    },
    summary="Search by image",
)
@admitted("image")
async def search_image(request: Request, pipeline: PipelineDep, service: ServiceDep) -> Response:
    """Find the images that are most similar to an image.

    Send the image as the file `file` of a multipart form, as base64 or a URL in JSON, or as the body itself. The
    Content-Type says which. For a raw body, it is `image/...` or `application/octet-stream`.

    JPEG, PNG, WebP, GIF (the first frame), BMP, TIFF, HEIC, AVIF and JPEG 2000 are supported.
    The content decides, not the Content-Type.
    """
    source, options = await _read_image(request)
    started = time.perf_counter()
    query = source if isinstance(source, ImageQuery) else await read_image(source, pipeline, service.fetcher, request)
    return await _respond(request, pipeline, query, options, started)


@router.post(
    "/search/item",
    response_model=SearchResponse,
    responses=errors(*_ERRORS, UnknownItem),
    openapi_extra=request_body(json_body(ItemSearch)),
    summary="Search by item",
)
@admitted("item")
async def search_item(request: Request, pipeline: PipelineDep) -> Response:
    """Find the images that are most similar to an item of the collection.

    The item itself is the first result, with score 1.0.
    """
    body = await read_json(request, ItemSearch)
    return await _respond(request, pipeline, ItemQuery(body.id), body.options, time.perf_counter())


async def _read_image(request: Request) -> tuple[ImageQuery | Base64Image | ImageUrl, SearchOptions]:
    """Return the image and the options; those of the body override those of the query string."""
    kind = media_type(request)
    in_query = {name: request.query_params.get(name) for name in OPTION_NAMES}
    limit = parse_whole("limit", in_query["limit"], DEFAULT_LIMIT)
    if kind == FORM:
        form = await read_form(request, files=1)
        data = form.file("file")
        if data is None:
            raise RequestError("the form has no part named 'file'; send the image as that")
        return ImageQuery(data), parse_options({name: form.text(name) or in_query[name] for name in OPTION_NAMES})
    if is_json(kind):
        body = await read_json(request, ImageSearch)
        return body.image_source, body.options if "limit" in body.model_fields_set else replace(
            body.options, limit=limit
        )
    if kind.startswith("image/") or kind == "application/octet-stream":
        return ImageQuery(await request.body()), parse_options(in_query)
    raise MediaTypeUnsupported(f"Content-Type is {kind or 'missing'}; send {FORM}, image/* or application/json")


async def _respond(
    request: Request, pipeline: QueryPipeline, query: Query, options: SearchOptions, started: float
) -> Response:
    result = await pipeline.search(query, options)
    results = [responses.hit(hit, pipeline, request) for hit in result.hits]
    return responses.json_response(
        {"results": results, "took_ms": responses.took_ms(result.took_ms, started), **responses.source(pipeline)}
    )
