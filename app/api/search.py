"""POST /v1/search, and its short forms /v1/search/text, /v1/search/image and /v1/search/item."""

from __future__ import annotations

import time
from typing import Any

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
from app.api.parameters import SEARCH_OPTIONS, parameter
from app.api.queries import admission_kind, combined, read_query
from app.api.request_admission import Admission, admitted
from app.api.request_bodies import Base64Image, ImageUrl, is_json, media_type, read_json
from app.api.routing import CollectionRouter
from app.api.schemas import DEFAULT_LIMIT, ImageSearch, ItemSearch, QuerySearch, Search, SearchResponse, TextSearch
from app.api.search_requests import read_search, search_of_texts, with_query
from app.auth.authentication import require_role
from app.errors import FormInvalid, MediaTypeUnsupported, RateLimited, RequestError
from app.execution.pipeline import CombinedQuery, ImageQuery, ItemQuery, Query, QueryPipeline, TextQuery
from lookalike.errors import UnknownItem
from lookalike.query import MAX_PARTS

router = CollectionRouter(tags=["search"], dependencies=[Depends(require_role("read", rate_limited=True))])

_ERRORS = (*ACCESS, *ADMISSION, *BODY, *OPTIONS, FormInvalid, RateLimited)


def _form(fields: dict[str, FormField]) -> Schema:
    """Return the form of a search."""
    examples = {"limit": 2}
    options = {
        name: FormField(each.kind, each.description, examples.get(name)) for name, each in SEARCH_OPTIONS.items()
    }
    return form_body({**fields, **options}, list(fields))


def _request(*bodies: Schema) -> Schema:
    """Return the requests of a search: one of the bodies, and options in the query string."""
    defaults = {"limit": {"minimum": 1, "default": DEFAULT_LIMIT}, "offset": {"minimum": 0, "default": 0}}
    parameters = [
        parameter(name, f"{each.description} The body may have it instead.", each.kind, **defaults.get(name, {}))
        for name, each in SEARCH_OPTIONS.items()
    ]
    return {**request_body(*bodies), "parameters": parameters}


@router.post(
    "/search",
    response_model=SearchResponse,
    responses=errors(*_ERRORS, *TEXT, *IMAGE, UnknownItem),
    openapi_extra=_request(json_body(QuerySearch)),
    summary="Search",
)
@admitted("text")
async def search(request: Request, pipeline: PipelineDep, service: ServiceDep) -> Response:
    """Find the images that match a query best: a text, an image, an item, an embedding, or several of them.

    Several parts are added as unit vectors, by their weights. A negative weight moves away from its part. The score of
    a result is its cosine with the sum; it compares results of this query, and means nothing beside other queries.

    A single part gives the same response as `/v1/search/text`, `/v1/search/image` or `/v1/search/item`.
    """
    body = with_query(request, await read_json(request, QuerySearch))
    admission: Admission = request.state.admission
    admission.change_kind(admission_kind(body.query))
    started = time.perf_counter()
    query = await read_query(body.query, pipeline, service.fetcher, admission)
    return responses.json_response(await search_body(request, pipeline, query, body, started))


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
    body, started = await read_search(request, TextSearch), time.perf_counter()
    return responses.json_response(await search_body(request, pipeline, TextQuery(body.text), body, started))


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

    A form may have several files `file`: they are combined with equal weights.

    JPEG, PNG, WebP, GIF (the first frame), BMP, TIFF, HEIC, AVIF and JPEG 2000 are supported.
    JPEG XL and camera RAW are where their extras are installed. The content decides, not the Content-Type.
    """
    images, body = await _read_images(request)
    started = time.perf_counter()
    if isinstance(images, Base64Image | ImageUrl):
        images = [await read_image(images, pipeline, service.fetcher, request.state.admission)]
    return responses.json_response(await search_body(request, pipeline, combined(images), body, started))


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
    body, started = await read_search(request, ItemSearch), time.perf_counter()
    return responses.json_response(await search_body(request, pipeline, ItemQuery(body.id), body, started))


async def _read_images(request: Request) -> tuple[list[ImageQuery] | Base64Image | ImageUrl, Search]:
    """Return the images and the options; raises as `read_search` does."""
    kind = media_type(request)
    if kind == FORM:
        form = await read_form(request, files=["file"], texts=list(SEARCH_OPTIONS), max_files=MAX_PARTS)
        if "file" not in form.files:
            raise RequestError("the form has no part named 'file'; send the image as that")
        return list(map(ImageQuery, form.files["file"])), with_query(request, search_of_texts(Search, form.texts))
    if is_json(kind):
        search = with_query(request, await read_json(request, ImageSearch))
        return search.image_source, search
    if kind.startswith("image/") or kind == "application/octet-stream":
        options = with_query(request, Search())
        return [ImageQuery(await request.body())], options
    raise MediaTypeUnsupported(f"Content-Type is {kind or 'missing'}; send {FORM}, image/* or application/json")


async def search_body(
    request: Request, pipeline: QueryPipeline, query: Query | CombinedQuery, search: Search, started: float
) -> dict[str, Any]:
    """Return the body of a search's response; `started` is the `perf_counter` at the end of the request."""
    options = search.options
    result = await pipeline.search(query, options)
    return {
        "results": [responses.hit(hit, options, pipeline, request) for hit in result.hits],
        "no_match": result.no_match,
        **({"warnings": result.warnings} if result.warnings else {}),
        "truncated_tokens": result.truncated_tokens,
        "took_ms": responses.took_ms(result.took_ms, started),
        **responses.source(pipeline),
    }
