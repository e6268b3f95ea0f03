"""GET /v1/models and /v1/models/{model}, as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Path
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import ServiceDep
from app.api.embedding_schemas import ModelResponse, ModelsResponse
from app.api.openapi import ACCESS, openai_errors
from app.api.request_admission import with_deadline
from app.api.routing import Router
from app.auth.authentication import require_role
from app.collections.hosted import HostedCollection
from app.collections.manager import CollectionManager
from app.errors import NotReady, UnknownModel
from lookalike.messages import quoted

router = Router(prefix="/v1/models", tags=["embeddings"], dependencies=[Depends(require_role("read"))])

ModelName = Annotated[str, Path(description="Name of a collection or of an encoder.", examples=["my-collection"])]


@router.get("", response_model=ModelsResponse, responses=openai_errors(*ACCESS), summary="List models")
@with_deadline
async def list_models(service: ServiceDep) -> Response:
    """List the names that `POST /v1/embeddings` takes as `model`: encoders, and collections for their encoders."""
    models = models_of(service.collections)
    data = [_model_response(name, hosted) for name, hosted in models.items()]
    return responses.json_response({"object": "list", "data": data})


@router.get(
    "/{model:path}",
    response_model=ModelResponse,
    responses=openai_errors(*ACCESS, NotReady, UnknownModel),
    summary="Get a model",
)
@with_deadline
async def get_model(model: ModelName, service: ServiceDep) -> Response:
    """Get the encoder, the width and the modalities of a model."""
    return responses.json_response(_model_response(model, find_model(model, service.collections)))


def find_model(name: str, collections: CollectionManager) -> HostedCollection:
    """Return the collection of a name, or else the first whose encoder has the name.

    Raises:
        UnknownModel: there is none.
        NotReady: the default collection is not open yet, so its encoder is not known.
    """
    models = models_of(collections)
    if name in models:
        return models[name]
    _ = collections.default.pipeline
    message = f"unknown model {quoted(name)}"
    known = ", ".join(models)
    raise UnknownModel(f"{message}; the models are {known}", [{"field": "model", "message": message}])


def models_of(collections: CollectionManager) -> dict[str, HostedCollection]:
    """Return the models by name; a collection comes before an encoder of the same name."""
    encoders = dict(_encoders(collections))
    return {**encoders, **{hosted.name: hosted for hosted in collections}}


def _encoders(collections: CollectionManager) -> Iterator[tuple[str, HostedCollection]]:
    for hosted in reversed(list(collections)):  # of two collections with one encoder the first one counts
        if (encoder := hosted.encoder) is not None:
            yield encoder.spec.name, hosted


def _model_response(name: str, hosted: HostedCollection) -> dict[str, Any]:
    body = {"id": name, "object": "model", "created": 0, "owned_by": "lookalike"}
    if (serving := hosted.status.serving) is None:
        return {**body, "encoder": None, "dimensions": None, "modalities": []}
    searcher = serving.pipeline.searcher
    spec = searcher.encoder.spec
    created = int(datetime.fromisoformat(searcher.collection.manifest.created).timestamp())
    modalities = ["image", "text"] if spec.text else ["image"]
    return {**body, "created": created, "encoder": spec.name, "dimensions": spec.dim, "modalities": modalities}
