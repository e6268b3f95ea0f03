"""GET /metrics for Prometheus, and GET /v1/stats for people."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import PlainTextResponse, Response

from app.api import responses
from app.api.dependencies import ServiceDep
from app.api.openapi import errors
from app.api.schemas import StatsResponse
from app.auth.roles import require_role
from app.telemetry import CONTENT_TYPE
from lookalike.stopwatch import STAGES

router = APIRouter(tags=["telemetry"], dependencies=[Depends(require_role("read"))])

_COLUMNS = ("count", "p50", "p90", "p99", "mean")


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={**errors(401), 200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
)
async def metrics(service: ServiceDep) -> Response:
    """Counts, times, batch sizes, queues and memory, for Prometheus."""
    return Response(service.telemetry.prometheus(), media_type=CONTENT_TYPE)


@router.get("/v1/stats", response_model=StatsResponse, responses={**errors(401), 200: {"content": {"text/plain": {}}}})
async def stats(request: Request, service: ServiceDep) -> Response:
    """What each stage of the last 1,000 queries took, ms; a table in plain text for `Accept: text/plain`."""
    known = service.telemetry.stages()
    table = {stage: known[stage] for stage in STAGES if stage in known}
    if request.headers.get("accept", "").startswith("text/plain"):
        rows = [("stage, ms", *_COLUMNS), *((stage, *(row[name] for name in _COLUMNS)) for stage, row in table.items())]
        return PlainTextResponse(
            "".join(f"{row[0]:<12}" + "".join(f"{cell:>10}" for cell in row[1:]) + "\n" for row in rows)
        )
    return responses.json_response({"stages": table})
