"""GET /livez, /readyz and /metrics: the paths that the health port serves."""

from __future__ import annotations

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.responses import PlainTextResponse, Response

from app.api import responses
from app.api.dependencies import ReadyDep, ServiceDep
from app.api.openapi import errors
from app.api.routing import Router
from app.api.schemas import Alive, Ready
from app.auth.authentication import require_role
from app.telemetry import CONTENT_TYPE

router = Router()


@router.head("/livez", include_in_schema=False)
@router.get("/livez", tags=["health"], response_model=Alive, responses=errors())
async def livez() -> Response:
    """Report that the process responds; also while the collection is being opened."""
    return responses.json_response({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", tags=["health"], response_model=Ready, responses=errors(503))
async def readyz(pipeline: ReadyDep) -> Response:
    """Report whether queries succeed: every few seconds an image and a text pass through every stage."""
    searcher = pipeline.searcher
    facts = {"status": "ready", "items": len(searcher.collection), "text": searcher.encoder.spec.text}
    return responses.json_response({**facts, **responses.source(pipeline)})


@router.get(
    "/metrics",
    tags=["telemetry"],
    dependencies=[Depends(require_role("read"))],
    response_class=PlainTextResponse,
    responses={**errors(401), 200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
)
async def metrics(service: ServiceDep) -> Response:
    """Get counts, times, batch sizes, queue lengths and memory, for Prometheus."""
    return Response(service.telemetry.prometheus(), media_type=CONTENT_TYPE)


PATHS = frozenset(route.path for route in router.routes if isinstance(route, APIRoute))
