"""GET /v1/items, /v1/items/{id} and /v1/items/{id}/thumbnail; /v1/item and /v1/item/thumbnail with a parameter `id`.

In a path, slashes of an id are plain or percent-encoded. A path that ends in a plain `/thumbnail` means the thumbnail.
An item whose own id ends so needs its slash encoded (`%2Fthumbnail`), or the parameter. Proxies change or refuse some
ids in a path: the parameter takes any.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import PipelineDep, SettingsDep
from app.api.openapi import ACCESS, ADMISSION, OPTIONS, errors
from app.api.parameters import FIELDS, FILTER, LIMIT, SORT, parameter, parse_fields, parse_whole
from app.api.request_admission import admitted
from app.api.routing import CollectionRouter
from app.api.schemas import ItemResponse, ItemsResponse
from app.auth.authentication import require_role
from app.errors import NoThumbnail, RequestError
from app.execution.pipeline import QueryPipeline
from app.settings import Settings
from lookalike.errors import QueryError, UnknownItem
from lookalike.filters import parse_filter
from lookalike.row_search import SearchOptions

router = CollectionRouter(tags=["items"], dependencies=[Depends(require_role("read"))])

ItemId = Annotated[
    str, Path(description="Id of the item. Its slashes may be percent-encoded.", examples=["chelsea.png"])
]

ItemIdParameter = Annotated[
    str, Query(alias="id", description="Id of the item: any, percent-encoded.", examples=["chelsea.png"])
]
ThumbnailVersion = Annotated[
    str, Query(description="Version of the collection, as in `thumbnail_url`. It has no effect on the image.")
]
DEFAULT_LIMIT = 24
_SIGNATURES = {b"RIFF": "image/webp", b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}
_THUMBNAIL: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {kind: {} for kind in _SIGNATURES.values()},
        "description": "The thumbnail: WebP, JPEG or PNG, at most 256 pixels a side.",
    },
    304: {"description": "The thumbnail is the one that `If-None-Match` names."},
}
_FIELDS = parameter("fields", FIELDS)
_PAGE: dict[str, Any] = {
    "parameters": [
        parameter("offset", "Number of items to skip.", "integer", minimum=0, default=0),
        parameter("limit", LIMIT, "integer", minimum=1, default=DEFAULT_LIMIT),
        parameter("filter", FILTER),
        parameter("sort", SORT),
        _FIELDS,
    ]
}
_ITEM: dict[str, Any] = {"parameters": [_FIELDS]}


@router.get(
    "/items",
    response_model=ItemsResponse,
    responses=errors(*ACCESS, *ADMISSION, RequestError, *OPTIONS),
    openapi_extra=_PAGE,
    summary="List items",
)
@admitted("read")
async def list_items(request: Request, pipeline: PipelineDep) -> Response:
    """List the items of the collection, page by page.

    Items have the order of their rows, or of the column `sort`. Items of equal values keep the order of their rows, and
    those without a value are last. Texts are sorted by their code points. `total` is the number of items of the
    collection, or of those that pass the filter.
    """
    query = request.query_params
    limit = parse_whole("limit", query.get("limit", str(DEFAULT_LIMIT)))
    offset = parse_whole("offset", query.get("offset", "0"))
    if offset < 0:
        raise RequestError(f"offset is {offset}; it must be 0 or more")
    condition = parse_filter(query["filter"]) if "filter" in query else None
    options = SearchOptions(limit, condition, fields=_fields(request))
    page = await pipeline.items(options, offset, query.get("sort"))
    items = [responses.item(row, record, pipeline, request) for row, record in page.items]
    return responses.json_response(
        {"items": items, "offset": offset, "total": page.total, **responses.source(pipeline)}
    )


@router.head("/items/{item_id:path}/thumbnail", include_in_schema=False)
@router.get(
    "/items/{item_id:path}/thumbnail",
    responses={**errors(*ACCESS, *ADMISSION, UnknownItem, NoThumbnail), **_THUMBNAIL},
    response_class=Response,
    summary="Get a thumbnail",
)
@admitted("read")
async def get_thumbnail(
    item_id: ItemId,
    request: Request,
    pipeline: PipelineDep,
    settings: SettingsDep,
    v: ThumbnailVersion = "",
) -> Response:
    """Get an item's thumbnail as an image file. `thumbnail_url` of an item is its URL.

    The response has an `ETag`. Browsers may cache it for `LOOKALIKE_THUMBNAIL_MAX_AGE` seconds. With the version in
    `v`, they need not revalidate it in that time. With another version than the one that responds, they must.

    An item whose own id ends in `/thumbnail` needs that slash encoded: `/v1/items/cup%2Fthumbnail`.
    """
    if not request.scope.get("raw_path", b"/thumbnail").endswith(b"/thumbnail"):
        return await item_response(f"{item_id}/thumbnail", request, pipeline)
    return await _thumbnail(item_id, v, request, pipeline, settings)


@router.head("/item/thumbnail", include_in_schema=False)
@router.get(
    "/item/thumbnail",
    responses={**errors(*ACCESS, *ADMISSION, RequestError, UnknownItem, NoThumbnail), **_THUMBNAIL},
    response_class=Response,
    summary="Get a thumbnail by a parameter",
)
@admitted("read")
async def get_thumbnail_by_parameter(
    item_id: ItemIdParameter, request: Request, pipeline: PipelineDep, settings: SettingsDep, v: ThumbnailVersion = ""
) -> Response:
    """Get a thumbnail like `/v1/items/{id}/thumbnail`, of an item with any id.

    Some ids can't be part of a path behind every proxy: with empty segments, `.` or `..`, line breaks, or `%`.
    """
    return await _thumbnail(item_id, v, request, pipeline, settings)


async def _thumbnail(
    item_id: str, version: str, request: Request, pipeline: QueryPipeline, settings: Settings
) -> Response:
    data, served = await pipeline.thumbnail(item_id)
    if data is None:
        raise NoThumbnail(f"the item {item_id!r} has no thumbnail")
    tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
    headers = {
        "ETag": tag,
        "Cache-Control": _cache_control(version, served, settings.thumbnail_max_age),
        "X-Collection-Version": pipeline.searcher.collection.manifest.version,
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=_sniff(data))


def _cache_control(requested: str, served: str, max_age: int) -> str:
    if not requested:
        return f"private, max-age={max_age}"
    return f"private, max-age={max_age}, immutable" if requested == served else "private, no-cache"


@router.head("/items/{item_id:path}", openapi_extra=_ITEM, include_in_schema=False)
@router.get(
    "/items/{item_id:path}",
    response_model=ItemResponse,
    responses=errors(*ACCESS, *ADMISSION, RequestError, QueryError, UnknownItem),
    openapi_extra=_ITEM,
    summary="Get an item",
)
@admitted("read")
async def get_item(item_id: ItemId, request: Request, pipeline: PipelineDep) -> Response:
    """Get an item's metadata and the URL of its thumbnail."""
    return await item_response(item_id, request, pipeline)


@router.head("/item", openapi_extra=_ITEM, include_in_schema=False)
@router.get(
    "/item",
    response_model=ItemResponse,
    responses=errors(*ACCESS, *ADMISSION, RequestError, QueryError, UnknownItem),
    openapi_extra=_ITEM,
    summary="Get an item by a parameter",
)
@admitted("read")
async def get_item_by_parameter(item_id: ItemIdParameter, request: Request, pipeline: PipelineDep) -> Response:
    """Get an item like `/v1/items/{id}`, with any id."""
    return await item_response(item_id, request, pipeline)


async def item_response(item_id: str, request: Request, pipeline: QueryPipeline) -> Response:
    """Return the response with an item."""
    row, record, tag = await pipeline.item(item_id, _fields(request))
    body = {**responses.item(row, record, pipeline, request), **responses.source(pipeline)}
    return responses.json_response(body, headers={"ETag": tag})


def _fields(request: Request) -> tuple[str, ...] | None:
    text = request.query_params.get("fields")
    return None if text is None else tuple(parse_fields(text))


def _sniff(data: bytes) -> str:
    """Return a thumbnail's media type by its first bytes: a collection's own word is not trusted."""
    kinds = (kind for signature, kind in _SIGNATURES.items() if data.startswith(signature))
    return next(kinds, "application/octet-stream")
