"""POST /v1/similarity: two sides, each an image, a text or an item, are compared."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from fastapi import Depends, Request
from starlette.responses import Response

from app.api import responses, schemas
from app.api.dependencies import PipelineDep, ServiceDep
from app.api.forms import FORM, Form, read_form
from app.api.image_inputs import read_image
from app.api.openapi import ACCESS, ADMISSION, BODY, IMAGE, TEXT, FormField, errors, form_body, json_body, request_body
from app.api.parameters import parse_threshold
from app.api.request_admission import admitted
from app.api.request_bodies import is_json, media_type, read_json
from app.api.routing import CollectionRouter
from app.api.schemas import SimilarityRequest, SimilarityResponse
from app.auth.authentication import require_role
from app.errors import MediaTypeUnsupported, RateLimited, RequestError
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import ImageQuery, ItemQuery, Query, QueryPipeline, TextQuery
from lookalike.errors import UnknownItem

router = CollectionRouter(tags=["similarity"], dependencies=[Depends(require_role("read", rate_limited=True))])

_FILES = {
    "a": FormField("binary", "Side a as an image file.", "photos/motorcycle_left.png"),
    "b": FormField("binary", "Side b as an image file.", "photos/motorcycle_right.png"),
}
_TEXTS = {
    "a_text": FormField("string", "Side a as a text."),
    "b_text": FormField("string", "Side b as a text."),
    "a_id": FormField("string", "Side a as the id of an item."),
    "b_id": FormField("string", "Side b as the id of an item."),
    "threshold": FormField("number", "Cosine distance up to which the sides are similar, 0 to 2."),
}


@router.post(
    "/similarity",
    response_model=SimilarityResponse,
    responses=errors(*ACCESS, *ADMISSION, *BODY, *TEXT, *IMAGE, UnknownItem, RateLimited),
    openapi_extra=request_body(json_body(SimilarityRequest), form_body({**_FILES, **_TEXTS}, [])),
    summary="Compare a pair",
)
@admitted("pair")
async def similarity(request: Request, pipeline: PipelineDep, service: ServiceDep) -> Response:
    """Compare two sides, each an image, a text or an item.

    `similar` says whether the cosine distance is at most the threshold. Without a `threshold` in the request, the
    encoder's own threshold for this kind of pair is used.

    In a form, send exactly one field for each side: `a`, `a_text` or `a_id`, and `b`, `b_text` or `b_id`.
    """
    kind = media_type(request)
    if kind == FORM:
        a, b, threshold = await _read_form(request)
    elif is_json(kind):
        a, b, threshold = await _read_json(request, pipeline, service.fetcher)
    else:
        raise MediaTypeUnsupported(f"Content-Type is {kind or 'missing'}; send application/json or {FORM}")
    started = time.perf_counter()
    result, stages = await pipeline.compare(a, b, threshold)
    return responses.json_response(
        {
            "cosine": responses.score(result.cosine),
            "distance": round(1.0 - responses.score(result.cosine), 6),
            "threshold": result.threshold,
            "similar": result.similar,
            "probability": responses.probability(result.probability),
            "kinds": [_kind(a), _kind(b)],
            "truncated_tokens": result.truncated_tokens,
            "took_ms": responses.took_ms(stages, started),
            **responses.source(pipeline),
        }
    )


async def _read_json(
    request: Request, pipeline: QueryPipeline, fetcher: ImageFetcher
) -> tuple[Query, Query, float | None]:
    body = await read_json(request, SimilarityRequest)
    a, b = await asyncio.gather(*(_side(side, pipeline, fetcher, request) for side in (body.a, body.b)))
    return a, b, body.threshold


async def _side(side: schemas.Side, pipeline: QueryPipeline, fetcher: ImageFetcher, request: Request) -> Query:
    if side.image_source is not None:
        return await read_image(side.image_source, pipeline, fetcher, request.state.admission)
    return TextQuery(side.text) if side.text is not None else ItemQuery(side.id or "")


async def _read_form(request: Request) -> tuple[Query, Query, float | None]:
    form = await read_form(request, files=_FILES, texts=_TEXTS)
    threshold = form.texts.get("threshold")
    return _form_side(form, "a"), _form_side(form, "b"), None if threshold is None else parse_threshold(threshold)


def _form_side(form: Form, name: str) -> Query:
    (data,), text, item_id = form.files.get(name, (None,)), form.texts.get(f"{name}_text"), form.texts.get(f"{name}_id")
    if sum(value is not None for value in (data, text, item_id)) != 1:
        raise RequestError(
            f"side {name}: give exactly one of the file {name!r} and the fields {name}_text and {name}_id"
        )
    if data is not None:
        return ImageQuery(data)
    return TextQuery(text) if text is not None else ItemQuery(item_id or "")


def _kind(side: Query) -> Literal["image", "text"]:
    return "text" if isinstance(side, TextQuery) else "image"
