"""The library's records -> JSON answers, written without a detour through models (schemas describe them)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import Request
from pydantic_core import to_json
from starlette.responses import Response

from app.execution.pipeline import QueryPipeline
from lookalike.stopwatch import STAGES
from lookalike.types import Hit


def json_response(body: Mapping[str, Any]) -> Response:
    """A 200 with JSON; NaN and infinity, which JSON lacks, become null."""
    return Response(to_json(body, inf_nan_mode="null"), media_type="application/json")


def source(pipeline: QueryPipeline) -> dict[str, str]:
    """Which collection, version and encoder answered."""
    manifest = pipeline.searcher.collection.manifest
    return {"collection": pipeline.name, "version": manifest.version, "encoder": manifest.encoder.name}


def took(stages: Mapping[str, float], started: float) -> dict[str, float]:
    """Every stage in milliseconds, 0.0 where it was not needed, and the total since `started` (`perf_counter`)."""
    times = {stage: round(stages.get(stage, 0.0), 3) for stage in STAGES}
    return {**times, "total": round((time.perf_counter() - started) * 1000.0, 3)}


def hit(found: Hit, pipeline: QueryPipeline, request: Request) -> dict[str, Any]:
    """One result."""
    return {
        "id": found.id,
        "score": score(found.score),
        "metadata": found.metadata,
        "thumbnail_url": thumbnail_url(found.id, found.row, pipeline, request),
    }


def item(row: int, record: Mapping[str, Any], pipeline: QueryPipeline, request: Request) -> dict[str, Any]:
    """One item from its row and record."""
    item_id = str(record["id"])
    metadata = {name: value for name, value in record.items() if name != "id"}
    return {"id": item_id, "metadata": metadata, "thumbnail_url": thumbnail_url(item_id, row, pipeline, request)}


def score(cosine: float) -> float:
    """Six decimals, which is what float16 vectors are good for, inside [-1, 1]."""
    return min(1.0, max(-1.0, round(cosine, 6)))


def thumbnail_url(item_id: str, row: int, pipeline: QueryPipeline, request: Request) -> str | None:
    """Where an item's thumbnail is, under the collection that was asked.

    Slashes in the id are encoded, so that no id can be mistaken for another path.
    """
    if not pipeline.has_thumbnail(row):
        return None
    named = request.path_params.get("name")
    collection = f"/collections/{quote(named, safe='')}" if named else ""
    return f"{request.scope.get('root_path', '')}/v1{collection}/items/{quote(item_id, safe='')}/thumbnail"
