"""GET /v1/fields, POST /v1/facets and POST /v1/count: what there is to filter by, and how many items pass."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import Depends, Request
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import PipelineDep
from app.api.openapi import ACCESS, ADMISSION, BODY, OPTIONS, errors, json_body, request_body
from app.api.request_admission import admitted
from app.api.request_bodies import read_json
from app.api.routing import CollectionRouter
from app.api.schemas import CountRequest, CountResponse, FacetsRequest, FacetsResponse
from app.auth.authentication import require_role
from app.execution.pipeline import QueryPipeline
from lookalike.errors import FilterInvalid
from lookalike.facets import Facet

router = CollectionRouter(tags=["items"], dependencies=[Depends(require_role("read"))])


@router.get("/fields", response_model=FacetsResponse, responses=errors(*ACCESS, *ADMISSION), summary="List the columns")
@admitted("read")
async def list_fields(pipeline: PipelineDep) -> Response:
    """List the columns that items can be filtered by, with their types and values.

    Texts, booleans and lists have their distinct values, the most frequent ones first, at most 100. Numbers, dates and
    times have their minimum and maximum. A count is the number of items that a filter for the value finds.
    """
    table = pipeline.searcher.table
    return _facets(await pipeline.run_in_pool(lambda: table.fields), len(table), pipeline)


@router.post(
    "/facets",
    response_model=FacetsResponse,
    responses=errors(*ACCESS, *ADMISSION, *BODY, *OPTIONS),
    openapi_extra=request_body(json_body(FacetsRequest)),
    summary="Describe the columns of some items",
)
@admitted("read")
async def post_facets(request: Request, pipeline: PipelineDep) -> Response:
    """Describe columns like `GET /v1/fields`, over the items that pass a filter.

    A histogram has round edges, of dates the starts of days, weeks, months or years. Infinite numbers and NaN are in no
    bin.
    """
    body, table = await read_json(request, FacetsRequest), pipeline.searcher.table

    def describe() -> tuple[list[Facet], int]:
        return table.facets(body.filter, body.fields, body.limit, body.bins), table.count(body.filter)

    facets, count = await pipeline.run_in_pool(describe)
    return _facets(facets, count, pipeline)


@router.post(
    "/count",
    response_model=CountResponse,
    responses=errors(*ACCESS, *ADMISSION, *BODY, FilterInvalid),
    openapi_extra=request_body(json_body(CountRequest)),
    summary="Count items",
)
@admitted("read")
async def post_count(request: Request, pipeline: PipelineDep) -> Response:
    """Count the items that pass a filter."""
    body, table = await read_json(request, CountRequest), pipeline.searcher.table
    count = await pipeline.run_in_pool(lambda: table.count(body.filter))
    return responses.json_response({"count": count, "total": len(table), **responses.source(pipeline)})


def _facets(facets: list[Facet], count: int, pipeline: QueryPipeline) -> Response:
    total = len(pipeline.searcher.table)
    fields = [asdict(each) for each in facets]
    return responses.json_response({"fields": fields, "count": count, "total": total, **responses.source(pipeline)})
