"""JSON responses, written straight from the library's records; `app.api.schemas` describes them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request
from pydantic_core import to_json
from starlette.responses import Response

from app.api.routing import collection_path
from app.execution.pipeline import QueryPipeline
from lookalike.row_search import SearchOptions
from lookalike.stopwatch import STAGES
from lookalike.types import Float32, Hit

_NEEDS_QUERY = re.compile(r"[\x00-\x1f\x7f-\x9f\\%?#;]|(^|/)\.{0,2}(/|\Z)|/(thumbnail|original)\Z")
"""Ids that a path can't carry: proxies merge slashes, resolve dots, and refuse some characters although encoded."""

_EMBEDDING_DECIMALS = 7
"""As many as float32 has for numbers below 1."""


def json_response(
    body: Mapping[str, Any], status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with JSON; NaN and infinity, which JSON lacks, become null."""
    return Response(to_json(body, inf_nan_mode="null"), status, headers, media_type="application/json")


def source(pipeline: QueryPipeline) -> dict[str, str]:
    """Return the collection, version and encoder that responded."""
    manifest = pipeline.searcher.collection.manifest
    return {"collection": pipeline.name, "version": manifest.version, "encoder": manifest.encoder.name}


def took_ms(stages: Mapping[str, float], started: float) -> dict[str, float]:
    """Return milliseconds by stage, 0.0 for a stage not needed, and the total since `started` (`perf_counter`)."""
    times = {stage: round(stages.get(stage, 0.0), 3) for stage in STAGES}
    return {**times, "total": round((time.perf_counter() - started) * 1000.0, 3)}


def hit(result: Hit, options: SearchOptions, pipeline: QueryPipeline, request: Request) -> dict[str, Any]:
    """Return one search result, with what the options ask for."""
    body: dict[str, Any] = {
        "id": result.id,
        "score": score(result.score),
        "probability": probability(result.probability),
        "metadata": result.metadata,
        "thumbnail_url": thumbnail_url(result.id, result.row, pipeline, request),
    }
    if pipeline.has_original(result.row):
        body["original_url"] = original_url(result.id, request)
    if options.group_by is not None:
        body["group"] = result.group
    if options.deduplicate is not None:
        body["duplicates"] = result.duplicates
    if result.embedding is not None:
        body["embedding"] = embedding(result.embedding)
    return body


def item(row: int, record: Mapping[str, Any], pipeline: QueryPipeline, request: Request) -> dict[str, Any]:
    """Return an item, from its row and record."""
    item_id = str(record["id"])
    metadata = {name: value for name, value in record.items() if name != "id"}
    body = {"id": item_id, "metadata": metadata, "thumbnail_url": thumbnail_url(item_id, row, pipeline, request)}
    if pipeline.has_original(row):
        body["original_url"] = original_url(item_id, request)
    return body


def embedding(vector: Float32) -> list[float]:
    """Return a unit vector (d,) as numbers for JSON."""
    numbers: list[float] = vector.astype(float).round(_EMBEDDING_DECIMALS).tolist()
    return numbers


def score(cosine: float) -> float:
    """Round a cosine to six decimals, the precision of float16 vectors, and clip it to [-1, 1]."""
    return min(1.0, max(-1.0, round(cosine, 6)))


def probability(value: float | None) -> float | None:
    """Round a probability to four decimals; None where there is none."""
    return None if value is None else round(value, 4)


def thumbnail_url(item_id: str, row: int, pipeline: QueryPipeline, request: Request) -> str | None:
    """Return the URL of an item's thumbnail in the request's collection, None where it has none.

    It names the version: when the image is replaced, its thumbnail has another URL.
    """
    if not pipeline.has_thumbnail(row):
        return None
    version = quote(pipeline.searcher.collection.thumbnail_version(row), safe="")
    url = _url(item_id, "thumbnail", request)
    return f"{url}{'&' if '?' in url else '?'}v={version}"


def original_url(item_id: str, request: Request) -> str:
    """Return the URL of an item's original in the request's collection."""
    return _url(item_id, "original", request)


def _url(item_id: str, part: str, request: Request) -> str:
    """Return the URL of a part of an item, such as its thumbnail."""
    path = collection_path(request)
    if _NEEDS_QUERY.search(item_id):
        return f"{path}/item/{part}?id={quote(item_id, safe='')}"
    return f"{path}/items/{quote(item_id, safe='/')}/{part}"
