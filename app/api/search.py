"""POST /v1/search/text, /v1/search/image and /v1/search/item."""

from __future__ import annotations

import time

from fastapi import Depends, Request
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import PipelineDep, ServiceDep
from app.api.forms import FORM, read_form
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
    Schema,
    errors,
    form_body,
    json_body,
    raw_body,
    request_body,
)
from app.api.parameters import FIELDS, FILTER, LIMIT, PARAMS, PARSERS, parameter
from app.api.request_admission import admitted
from app.api.request_bodies import Base64Image, ImageUrl, is_json, media_type, read_json
from app.api.routing import CollectionRouter
from app.api.schemas import DEFAULT_LIMIT, ImageSearch, ItemSearch, Search, SearchResponse, TextSearch
from app.api.search_requests import read_search, search_of_texts, with_query
from app.auth.authentication import require_role
from app.errors import FormInvalid, MediaTypeUnsupported, RateLimited, RequestError
from app.execution.pipeline import ImageQuery, ItemQuery, Query, QueryPipeline, TextQuery
from lookalike.errors import UnknownItem
from lookalike.row_search import SearchOptions

router = CollectionRouter(tags=["search"], dependencies=[Depends(require_role("read", rate_limited=True))])

_OPTIONS = {
    "limit": FormField("integer", f"{LIMIT} {DEFAULT_LIMIT} by default.", 2),
    "filter": FormField("string", FILTER),
    "params": FormField("string", PARAMS),
    "fields": FormField("string", FIELDS),
}
_ERRORS = (*ACCESS, *ADMISSION, *BODY, *OPTIONS, FormInvalid, RateLimited)


def _form(fields: dict[str, FormField]) -> Schema:
    """Return the form of a search."""
    return form_body({**fields, **_OPTIONS}, list(fields))


def _request(*bodies: Schema) -> Schema:
    """Return the requests of a search: one of the bodies, and options in the query string."""
    in_query = " A form or JSON may have it instead."
    parameters = [
        parameter("limit", LIMIT + in_query, "integer", minimum=1, default=DEFAULT_LIMIT),
        parameter("filter", FILTER + in_query),
        parameter("params", PARAMS + in_query),
        parameter("fields", FIELDS + in_query),
    ]
    return {**request_body(*bodies), "parameters": parameters}


@router.post(
    "/search/text",
    response_model=SearchResponse,
    responses=errors(*_ERRORS, *TEXT),
    openapi_extra=_request(json_body(TextSearch), _form({"text": FormField("string", "Text query.", "a cat")})),
    summary="Search by text",
)
@admitted("text")
async def search_text(request: Request, pipeline: PipelineDep) -> Response:
    """Find the images that match a text best.

    The collection's encoder must support text: `text` is true in the collection's entry of `GET /v1/collections`.
    """
    body = await read_search(request, TextSearch)
    return await _respond(request, pipeline, TextQuery(body.text), body.options, time.perf_counter())


@router.post(
    "/search/image",
    response_model=SearchResponse,
    responses=errors(*_ERRORS, *IMAGE),
    openapi_extra=_request(
        _form({"file": FormField("binary", "The image file.", IMAGE_FILE)}), json_body(ImageSearch), raw_body()
    ),
    summary="Search by image",
)
@admitted("image")
async def search_image(request: Request, pipeline: PipelineDep, service: ServiceDep) -> Response:
    """Find the images that are most similar to an image.

    Send the image as the file `file` of a multipart form, as base64 or a URL in JSON, or as the body itself. The
    Content-Type says which. For a raw body, it is `image/...` or `application/octet-stream`.

    JPEG, PNG, WebP, GIF (the first frame), BMP, TIFF, HEIC, AVIF and JPEG 2000 are supported.
    JPEG XL and camera RAW are where their extras are installed. The content decides, not the Content-Type.
    """
    source, options = await _read_image(request)
    started = time.perf_counter()
    query = source if isinstance(source, ImageQuery) else await read_image(source, pipeline, service.fetcher, request)
    return await _respond(request, pipeline, query, options, started)


@router.post(
    "/search/item",
    response_model=SearchResponse,
    responses=errors(*_ERRORS, UnknownItem),
    openapi_extra=_request(json_body(ItemSearch), _form({"id": FormField("string", "Id of the item.", "chelsea.png")})),
    summary="Search by item",
)
@admitted("item")
async def search_item(request: Request, pipeline: PipelineDep) -> Response:
    """Find the images that are most similar to an item of the collection.

    The item itself is the first result, with score 1.0.
    """
    body = await read_search(request, ItemSearch)
    return await _respond(request, pipeline, ItemQuery(body.id), body.options, time.perf_counter())


async def _read_image(request: Request) -> tuple[ImageQuery | Base64Image | ImageUrl, SearchOptions]:
    """Return the image and the options; raises as `read_search` does."""
    kind = media_type(request)
    if kind == FORM:
        form = await read_form(request, files=["file"], texts=list(PARSERS))
        if "file" not in form.files:
            raise RequestError("the form has no part named 'file'; send the image as that")
        return ImageQuery(form.files["file"]), with_query(request, search_of_texts(Search, form.texts)).options
    if is_json(kind):
        body = with_query(request, await read_json(request, ImageSearch))
        return body.image_source, body.options
    if kind.startswith("image/") or kind == "application/octet-stream":
        options = with_query(request, Search()).options
        return ImageQuery(await request.body()), options
    raise MediaTypeUnsupported(f"Content-Type is {kind or 'missing'}; send {FORM}, image/* or application/json")


async def _respond(
    request: Request, pipeline: QueryPipeline, query: Query, options: SearchOptions, started: float
) -> Response:
    result = await pipeline.search(query, options)
    results = [responses.hit(hit, pipeline, request) for hit in result.hits]
    return responses.json_response(
        {
            "results": results,
            "truncated_tokens": result.truncated_tokens,
            "took_ms": responses.took_ms(result.took_ms, started),
            **responses.source(pipeline),
        }
    )
