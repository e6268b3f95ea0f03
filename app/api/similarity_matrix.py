"""POST /v1/similarity/matrix: each input of a list is compared with each of another."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import Depends, Request
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import PipelineDep, ServiceDep
from app.api.input_embedding import Input, embed_inputs
from app.api.matrix_schemas import MatrixRequest, MatrixResponse
from app.api.openapi import ACCESS, ADMISSION, BODY, IMAGE, TEXT, errors, json_body, request_body
from app.api.request_admission import admitted
from app.api.request_bodies import read_json
from app.api.routing import CollectionRouter
from app.api.schemas import Side
from app.auth.authentication import count_queries, require_role
from app.errors import RateLimited
from app.execution.pipeline import ItemQuery, TextQuery
from lookalike.errors import UnknownItem
from lookalike.search import compare_all

router = CollectionRouter(tags=["similarity"], dependencies=[Depends(require_role("read", rate_limited=True))])


@router.post(
    "/similarity/matrix",
    response_model=MatrixResponse,
    responses=errors(*ACCESS, *ADMISSION, *BODY, *TEXT, *IMAGE, UnknownItem, RateLimited),
    openapi_extra=request_body(json_body(MatrixRequest)),
    summary="Compare many with many",
)
@admitted("text")
async def similarity_matrix(request: Request, pipeline: PipelineDep, service: ServiceDep) -> Response:
    """Compare each input of `a` with each of `b`: images, texts and items, at most 256 inputs and 10,000 pairs.

    Each input is encoded once. The request counts as its inputs for the rate limit and for admission. An input that
    can't be encoded fails the request; the error names its position.
    """
    body = await read_json(request, MatrixRequest)
    sides = [*body.a, *(body.b or ())]
    count_queries(request, len(sides))
    started = time.perf_counter()
    names = [*input_names("a", body.a), *input_names("b", body.b or ())]
    embedded = await embed_inputs(
        [input_of(side) for side in sides], names, pipeline, service.fetcher, request.state.admission
    )
    a = embedded.embeddings[: len(body.a)]
    b = a if body.b is None else embedded.embeddings[len(body.a) :]
    spec = pipeline.searcher.encoder.spec
    cosines, probabilities = await pipeline.run_in_pool(lambda: compare_all(a, b, spec))
    return responses.json_response(
        {
            "cosine": [[responses.score(cosine) for cosine in row] for row in cosines.tolist()],
            "probability": [[responses.probability(each) for each in row] for row in probabilities],
            "kinds": [[each.modality for each in side] for side in (a, b)],
            "truncated_tokens": [[each.truncated_tokens for each in side] for side in (a, b)],
            "took_ms": responses.took_ms(embedded.took_ms, started),
            **responses.source(pipeline),
        }
    )


def input_of(side: Side) -> Input:
    """Return the input that a side names."""
    if side.image_source is not None:
        return side.image_source
    return TextQuery(side.text) if side.text is not None else ItemQuery(side.id or "")


def input_names(name: str, inputs: Sequence[object]) -> list[str]:
    """Return the names of a list's inputs for errors: `a.0`, `a.1` and so on."""
    return [f"{name}.{position}" for position in range(len(inputs))]
