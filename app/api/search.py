"""POST /v1/search/text, /v1/search/image and /v1/search/item."""

from __future__ import annotations

import time
from dataclasses import replace

from fastapi import Depends, Request
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import PipelineDep, ServiceDep
from app.api.image_inputs import read_image
from app.api.openapi import errors, form_body, json_body, raw_body, request_body
from app.api.request_admission import admitted
from app.api.request_bodies import FORM, Base64Image, ImageUrl, is_json, media_type, parse_whole, read_form, read_json
from app.api.routing import CollectionRouter
from app.api.schemas import DEFAULT_LIMIT, OPTIONS, ImageSearch, ItemSearch, SearchResponse, TextSearch, parse_options
from app.auth.authentication import require_role
from app.errors import MediaTypeUnsupported, RequestError
from app.execution.pipeline import ImageQuery, ItemQuery, Query, QueryPipeline, TextQuery
from lookalike.row_search import SearchOptions

router = CollectionRouter(tags=["search"], dependencies=[Depends(require_role("read", rate_limited=True))])

_PARAMETERS = [
    {
        "name": "limit",
        "in": "query",
        "description": "How many items to return, unless the body has it.",
        "schema": {"type": "integer", "minimum": 1, "default": DEFAULT_LIMIT},
    },
    {
        "name": "filter",
        "in": "query",
        "description": "A `Filter` as JSON text, unless the body has it.",
        "schema": {"type": "string"},
    },
    {
        "name": "params",
        "in": "query",
        "description": "`Params` as JSON text, unless the body has it.",
        "schema": {"type": "string"},
    },
]
_FORM = {"file": "binary", "limit": "integer", "filter": "string", "params": "string"}


@router.post(
    "/search/text",
    response_model=SearchResponse,
    responses=errors(400, 401, 408, 413, 415, 422, 429, 503),
    openapi_extra=request_body(json_body(TextSearch)),
)
@admitted("text")
async def search_text(request: Request, pipeline: PipelineDep) -> Response:
    """Find images by a description in words."""
    body = await read_json(request, TextSearch)
    return await _respond(request, pipeline, TextQuery(body.text), body.options, time.perf_counter())


@router.post(
    "/search/image",
    response_model=SearchResponse,
    responses=errors(400, 401, 408, 413, 415, 422, 429, 503),
    openapi_extra={
        **request_body(form_body(_FORM, ["file"]), json_body(ImageSearch), raw_body()),
        "parameters": _PARAMETERS,
    },
)
@admitted("image")
async def search_image(request: Request, pipeline: PipelineDep, service: ServiceDep) -> Response:
    """Find images similar to an image: a multipart `file`, a raw `image/*` body, or base64 or a URL in JSON."""
    source, options = await _read_image(request)
    started = time.perf_counter()
    query = source if isinstance(source, ImageQuery) else await read_image(source, pipeline, service.fetcher, request)
    return await _respond(request, pipeline, query, options, started)


@router.post(
    "/search/item",
    response_model=SearchResponse,
    responses=errors(400, 401, 404, 408, 413, 415, 422, 429, 503),
    openapi_extra=request_body(json_body(ItemSearch)),
)
@admitted("item")
async def search_item(request: Request, pipeline: PipelineDep) -> Response:
    """Find images similar to an item of the collection; the item itself comes first, with score 1.0."""
    body = await read_json(request, ItemSearch)
    return await _respond(request, pipeline, ItemQuery(body.id), body.options, time.perf_counter())


async def _read_image(request: Request) -> tuple[ImageQuery | Base64Image | ImageUrl, SearchOptions]:
    """Return the image and the options; those of the body override those of the query string."""
    kind = media_type(request)
    in_query = {name: request.query_params.get(name) for name in OPTIONS}
    limit = parse_whole("limit", in_query["limit"], DEFAULT_LIMIT)
    if kind == FORM:
        form = await read_form(request, files=1)
        data = form.file("file")
        if data is None:
            raise RequestError("the form has no part named 'file'; send the image as that")
        return ImageQuery(data), parse_options({name: form.text(name) or in_query[name] for name in OPTIONS})
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
