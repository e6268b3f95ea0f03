"""GET /v1/map: where the items of a collection lie on its map."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from pydantic_core import to_json
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import PipelineDep, ServiceDep
from app.api.openapi import ACCESS, ADMISSION, errors
from app.api.request_admission import admitted
from app.api.routing import CollectionRouter
from app.api.schemas import MapResponse
from app.auth.authentication import require_role
from app.errors import NoMap, RequestError
from app.execution.pipeline import QueryPipeline
from app.execution.response_cache import EncodedResponse
from app.service import Service
from lookalike.collection_map import map_stamp
from lookalike.errors import QueryError
from lookalike.item_map import column_values, item_ids, item_map
from lookalike.messages import quoted

router = CollectionRouter(tags=["items"], dependencies=[Depends(require_role("read"))])

FieldParameter = Annotated[
    str,
    Query(
        description="Column whose values the response has, to colour the items by: of a list the first element, of a "
        "text the first 200 characters. By default, none."
    ),
]
_DECIMALS = 5
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The map is the one that `If-None-Match` names."}
}


@router.get(
    "/map",
    response_model=MapResponse,
    responses={**errors(*ACCESS, *ADMISSION, RequestError, NoMap, QueryError), **_NOT_MODIFIED},
    summary="Get the map",
)
@admitted("read")
async def get_map(request: Request, pipeline: PipelineDep, service: ServiceDep, field: FieldParameter = "") -> Response:
    """Get the places of all items on the collection's map, on which items that look alike lie close together.

    `lookalike map COLLECTION` makes the map of a version. A replaced item keeps its place. Items that were added later
    are not on the map; `unmapped` is their number. The response has an `ETag`, so that a browser can revalidate it.
    """
    found = await pipeline.run_in_pool(partial(_encoded, pipeline, service, field))
    headers = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers, media_type="application/json")


def _encoded(pipeline: QueryPipeline, service: Service, field: str) -> EncodedResponse:
    collection = pipeline.searcher.collection
    stamp = map_stamp(collection.folder)
    if stamp is None:
        raise NoMap(f"collection {quoted(pipeline.name)} has no map; make one with `{_command(pipeline)}`")
    return service.responses.get(collection, ("map", pipeline.name, stamp, field), partial(_body, pipeline, field))


def _body(pipeline: QueryPipeline, field: str) -> bytes:
    collection = pipeline.searcher.collection
    found = item_map(collection)
    if found is None:
        name = quoted(pipeline.name)
        raise NoMap(f"the map of collection {name} is damaged; make it again with `{_command(pipeline)}`")
    coloured = None
    if field:
        kind, values = column_values(field, collection.metadata, found.rows)
        coloured = {"name": field, "type": kind, "values": values}
    ids = item_ids(collection.metadata, found.rows)
    x, y = found.points.T.astype(float).round(_DECIMALS).tolist()
    return to_json(
        {
            "items": len(ids),
            "unmapped": found.unmapped,
            "method": found.made.method,
            "created": found.made.created,
            "ids": ids,
            "x": x,
            "y": y,
            "field": coloured,
            **responses.source(pipeline),
        },
        inf_nan_mode="null",
    )


def _command(pipeline: QueryPipeline) -> str:
    return f"lookalike map {shlex.quote(pipeline.name)}"
