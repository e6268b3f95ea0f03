"""POST /v1/search/batch: several searches in one request."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from fastapi import Depends, Request
from pydantic import ValidationError
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import PipelineDep, ServiceDep
from app.api.openapi import ACCESS, ADMISSION, BODY, errors, json_body, request_body
from app.api.queries import admission_kind, read_query
from app.api.request_admission import Admission, Slot, admitted
from app.api.request_bodies import body_error, read_json
from app.api.routing import CollectionRouter
from app.api.schemas import BatchResponse, BatchSearch, QuerySearch
from app.api.search import search_body
from app.auth.authentication import count_queries, require_role
from app.errors import INTERNAL_ERROR, RateLimited, is_client_error
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import QueryPipeline
from app.middleware.problems import problem_of
from lookalike.errors import LookalikeError

logger = logging.getLogger(__name__)

router = CollectionRouter(tags=["search"], dependencies=[Depends(require_role("read", rate_limited=True))])


@router.post(
    "/search/batch",
    response_model=BatchResponse,
    responses=errors(*ACCESS, *ADMISSION, *BODY, RateLimited),
    openapi_extra=request_body(json_body(BatchSearch)),
    summary="Search in a batch",
)
@admitted("text")
async def search_batch(request: Request, pipeline: PipelineDep, service: ServiceDep) -> Response:
    """Run up to 100 searches, each as `POST /v1/search` takes it.

    Each has its own response, or its own problem document: one that fails costs no other. A batch counts as its
    queries for the rate limit and for admission.
    """
    body = await read_json(request, BatchSearch)
    count_queries(request, len(body.queries))
    started = time.perf_counter()
    read = [_read_search(query) for query in body.queries]
    admission: Admission = request.state.admission
    slots = iter(admission.split([admission_kind(each.query) for each in read if isinstance(each, QuerySearch)]))
    searches = [
        _respond(request, pipeline, service.fetcher, each, next(slots), started)
        if isinstance(each, QuerySearch)
        else _problem(request, each)
        for each in read
    ]
    return responses.json_response({"responses": await asyncio.gather(*searches)})


def _read_search(query: object) -> QuerySearch | LookalikeError:
    try:
        return QuerySearch.model_validate(query)
    except ValidationError as error:
        return body_error(error, QuerySearch)


async def _respond(
    request: Request, pipeline: QueryPipeline, fetcher: ImageFetcher, search: QuerySearch, slot: Slot, started: float
) -> dict[str, Any]:
    """Return the response to one query, or its problem document."""
    client_error = False
    try:
        query = await read_query(search.query, pipeline, fetcher, slot)
        return await search_body(request, pipeline, query, search, started)
    except Exception as error:
        client_error = is_client_error(error)
        return await _problem(request, error)
    finally:
        slot.finish(completed=True, client_error=client_error)


async def _problem(request: Request, error: Exception) -> dict[str, Any]:
    problem = problem_of(error, request.scope)
    request.app.state.service.telemetry.count_error(problem.code)
    if problem.code == INTERNAL_ERROR:
        logger.error("a query of a batch failed", exc_info=error)
    return problem.document(request.scope["path"])
