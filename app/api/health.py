"""GET /livez, /readyz and /metrics: the paths that the health port serves."""

from __future__ import annotations

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.responses import PlainTextResponse, Response

from app.api import responses
from app.api.dependencies import ReadyDep, ServiceDep
from app.api.openapi import ACCESS, errors
from app.api.routing import Router
from app.api.schemas import Alive, Ready
from app.auth.authentication import require_role
from app.errors import NotReady
from app.telemetry import CONTENT_TYPE

router = Router()


@router.head("/livez", include_in_schema=False)
@router.get("/livez", tags=["health"], response_model=Alive, responses=errors(), summary="Check the process")
async def livez() -> Response:
    """Report that the process responds. It does so while the collection is being opened, too. Needs no key."""
    return responses.json_response({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz", tags=["health"], response_model=Ready, responses=errors(NotReady), summary="Check that queries succeed"
)
async def readyz(pipeline: ReadyDep) -> Response:
    """Report whether queries to the default collection succeed. Needs no key.

    Every `LOOKALIKE_PROBE_SECONDS`, the service sends an image and a text through every stage of a query. While a probe
    fails, or before the first one has succeeded, the response is 503, and its `detail` has the reason.
    """
    searcher = pipeline.searcher
    facts = {"status": "ready", "items": len(searcher.collection), "text": searcher.encoder.spec.text}
    return responses.json_response({**facts, **responses.source(pipeline)})


@router.get(
    "/metrics",
    tags=["telemetry"],
    dependencies=[Depends(require_role("read"))],
    response_class=PlainTextResponse,
    summary="Get metrics for Prometheus",
    responses={**errors(*ACCESS), 200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
)
async def metrics(service: ServiceDep) -> Response:
    """Get counts, times, batch sizes, queue lengths and memory in Prometheus' text format.

    `docs/reference/metrics.md` lists the metrics.
    """
    return Response(service.telemetry.prometheus(), media_type=CONTENT_TYPE)


PATHS = frozenset(route.path for route in router.routes if isinstance(route, APIRoute))
