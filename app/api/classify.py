"""POST /v1/classify: which of several labels describes an image best."""

from __future__ import annotations

import time

import numpy as np
from fastapi import Depends, Request
from starlette.responses import Response

from app.api import responses
from app.api.classify_schemas import ClassifyRequest, ClassifyResponse
from app.api.dependencies import PipelineDep, ServiceDep
from app.api.input_embedding import embed_inputs
from app.api.openapi import ACCESS, ADMISSION, BODY, IMAGE, TEXT, errors, json_body, request_body
from app.api.request_admission import admitted
from app.api.request_bodies import read_json
from app.api.routing import CollectionRouter
from app.api.similarity_matrix import input_names, input_of
from app.auth.authentication import count_queries, require_role
from app.errors import RateLimited
from app.execution.pipeline import TextQuery
from lookalike.errors import UnknownItem
from lookalike.search import Embedding, compare_all, ensemble, softmax
from lookalike.types import EncoderSpec

router = CollectionRouter(tags=["classification"], dependencies=[Depends(require_role("read", rate_limited=True))])


@router.post(
    "/classify",
    response_model=ClassifyResponse,
    responses=errors(*ACCESS, *ADMISSION, *BODY, *TEXT, *IMAGE, UnknownItem, RateLimited),
    openapi_extra=request_body(json_body(ClassifyRequest)),
    summary="Classify images",
)
@admitted("text")
async def classify(request: Request, pipeline: PipelineDep, service: ServiceDep) -> Response:
    """Compare images with labels, at most 10,000 pairs, without any training.

    `softmax` compares the labels with each other. `probability` looks at one label alone: where none fits, all are low.

    The request counts as its images and its texts for the rate limit and for admission. An input that can't be
    encoded fails the request; the error names its position.
    """
    body = await read_json(request, ClassifyRequest)
    templates = len(body.templates)
    prompts = body.prompts
    count_queries(request, len(body.inputs) + len(prompts))
    started = time.perf_counter()
    names = [*input_names("inputs", body.inputs), *(f"labels.{place // templates}" for place in range(len(prompts)))]
    inputs = [*map(input_of, body.inputs), *map(TextQuery, prompts)]
    embedded = await embed_inputs(inputs, names, pipeline, service.fetcher, request.state.admission)
    images, texts = embedded.embeddings[: len(body.inputs)], embedded.embeddings[len(body.inputs) :]
    spec = pipeline.searcher.encoder.spec
    results = await pipeline.run_in_pool(lambda: _classify(images, texts, body.labels, spec))
    return responses.json_response(
        {
            "results": results,
            "temperature": spec.temperature,
            "took_ms": responses.took_ms(embedded.took_ms, started),
            **responses.source(pipeline),
        }
    )


def _classify(
    images: list[Embedding], texts: list[Embedding], labels: list[str], spec: EncoderSpec
) -> list[dict[str, object]]:
    """Return the predictions for each image; each label has the same number of consecutive texts."""
    width = len(texts) // len(labels)
    groups = [texts[place : place + width] for place in range(0, len(texts), width)]
    classes = [Embedding(ensemble(np.stack([each.vector for each in group])), "text") for group in groups]
    cosines, probabilities = compare_all(images, classes, spec)
    shares = softmax(cosines, spec.temperature)
    return [
        {
            "predictions": [
                {
                    "label": labels[j],
                    "cosine": responses.score(float(cosines[i, j])),
                    "softmax": round(float(shares[i, j]), 6),
                    "probability": responses.probability(probabilities[i][j]),
                }
                for j in np.argsort(-cosines[i], kind="stable").tolist()
            ]
        }
        for i in range(len(images))
    ]
