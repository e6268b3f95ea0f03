"""GET /livez and /readyz."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import ReadyDep
from app.api.openapi import errors
from app.api.schemas import Alive, Ready

router = APIRouter(tags=["health"])


@router.head("/livez", include_in_schema=False)
@router.get("/livez", response_model=Alive, responses=errors())
async def livez() -> Response:
    """Whether the process answers; true while the collection is still being opened."""
    return responses.json_response({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", response_model=Ready, responses=errors(503))
async def readyz(pipeline: ReadyDep) -> Response:
    """Whether queries are answered: an image and a text pass through every stage each few seconds."""
    searcher = pipeline.searcher
    facts = {"status": "ready", "items": len(searcher.collection), "text": searcher.encoder.spec.text}
    return responses.json_response({**facts, **responses.source(pipeline)})
