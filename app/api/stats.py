"""GET /v1/stats."""

from __future__ import annotations

from fastapi import Depends, Request
from starlette.responses import PlainTextResponse, Response

from app.api import responses
from app.api.dependencies import ServiceDep
from app.api.openapi import ACCESS, errors
from app.api.request_admission import with_deadline
from app.api.routing import Router
from app.api.schemas import StatsResponse
from app.auth.authentication import require_role
from lookalike.stopwatch import STAGES

router = Router(tags=["telemetry"], dependencies=[Depends(require_role("read"))])

_COLUMNS = ("count", "p50", "p90", "p99", "mean")


@router.get(
    "/v1/stats",
    response_model=StatsResponse,
    responses={**errors(*ACCESS), 200: {"content": {"text/plain": {}}}},
    summary="Get times by stage",
)
@with_deadline
async def stats(request: Request, service: ServiceDep) -> Response:
    """Get how long each stage of the last 1,000 queries took, in milliseconds.

    The response is a plain table if the request has the header `Accept: text/plain`.
    """
    measured = service.telemetry.stages()
    table = {stage: measured[stage] for stage in STAGES if stage in measured}
    if request.headers.get("accept", "").startswith("text/plain"):
        return PlainTextResponse(_as_text(table))
    return responses.json_response({"stages": table})


def _as_text(table: dict[str, dict[str, float]]) -> str:
    rows = [("stage, ms", *_COLUMNS), *((stage, *(row[name] for name in _COLUMNS)) for stage, row in table.items())]
    return "".join(f"{row[0]:<12}" + "".join(f"{cell:>10}" for cell in row[1:]) + "\n" for row in rows)
