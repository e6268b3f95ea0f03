"""POST /v1/embeddings, as OpenAI's API has it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from fastapi import Depends, Request
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import ServiceDep
from app.api.embedding_schemas import EmbeddingsRequest, EmbeddingsResponse
from app.api.input_embedding import embed_inputs
from app.api.models import find_model
from app.api.openapi import ACCESS, ADMISSION, BODY, IMAGE, TEXT, json_body, openai_errors, request_body
from app.api.request_admission import admitted
from app.api.request_bodies import read_json
from app.api.routing import Router
from app.auth.authentication import count_queries, require_role
from app.errors import RateLimited, RequestError, UnknownModel
from app.execution.pipeline import QueryPipeline, TextQuery
from lookalike.types import Float32

router = Router(tags=["embeddings"], dependencies=[Depends(require_role("read", rate_limited=True))])


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsResponse,
    responses=openai_errors(*ACCESS, *ADMISSION, *BODY, *TEXT, *IMAGE, RateLimited, UnknownModel),
    openapi_extra=request_body(json_body(EmbeddingsRequest)),
    summary="Embed texts and images",
)
@admitted("text")
async def create_embeddings(request: Request, service: ServiceDep) -> Response:
    """Embed up to 2,048 texts and images, in OpenAI's form.

    Embeddings have unit norm, so their dot product is the cosine. The request counts as its inputs for the rate limit
    and for admission. An input that can't be embedded fails the request; the error names its position.
    """
    body = await read_json(request, EmbeddingsRequest)
    inputs = body.inputs
    count_queries(request, len(inputs))
    collection = None if body.model is None else find_model(body.model, service.collections).name
    pipeline = await service.collections.pipeline(collection)
    _check_dimensions(body.dimensions, pipeline)
    names = [f"input.{position}" for position in range(len(inputs))]
    embedded = await embed_inputs(inputs, names, pipeline, service.fetcher, request.state.admission)
    tokens = await _count_tokens([each.text for each in inputs if isinstance(each, TextQuery)], pipeline)
    as_base64 = "base64" in (body.encoding_format, body.embedding_type)
    return responses.json_response(
        {
            "object": "list",
            "model": body.model if body.model is not None else pipeline.searcher.encoder.spec.name,
            "data": [
                {"object": "embedding", "index": index, "embedding": _written(each.vector, as_base64=as_base64)}
                for index, each in enumerate(embedded.embeddings)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _check_dimensions(dimensions: int | None, pipeline: QueryPipeline) -> None:
    spec = pipeline.searcher.encoder.spec
    if dimensions not in (None, spec.dim):
        message = f"it is {dimensions}; encoder {spec.name!r} has {spec.dim}, and embeddings can't be shortened"
        raise RequestError(f"dimensions: {message}", [{"field": "dimensions", "message": message}])


async def _count_tokens(texts: Sequence[str], pipeline: QueryPipeline) -> int:
    searcher = pipeline.searcher
    if not texts:
        return 0
    return await pipeline.run_in_pool(lambda: sum(searcher.token_counts([*map(searcher.prepare_text, texts)])))


def _written(vector: Float32, *, as_base64: bool) -> Any:
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return responses.embedding(vector)
