"""GET /v1/collections, /v1/collections/{name}, and POST /v1/collections/{name}/reload."""

from __future__ import annotations

from typing import Any

from fastapi import Depends
from starlette.responses import Response

from app.api import responses
from app.api.dependencies import CollectionName, ServiceDep
from app.api.openapi import ACCESS, errors
from app.api.request_admission import with_deadline
from app.api.routing import Router
from app.api.schemas import CollectionResponse, CollectionsResponse
from app.auth.authentication import require_role
from app.collections.hosted import HostedCollection
from app.errors import UnknownCollection, VersionRefused
from lookalike.errors import LookalikeError

router = Router(prefix="/v1/collections", tags=["collections"], dependencies=[Depends(require_role("read"))])


@router.get("", response_model=CollectionsResponse, responses=errors(*ACCESS), summary="List collections")
@with_deadline
async def list_collections(service: ServiceDep) -> Response:
    """List the collections of the service, with version, size and encoder.

    `failure` says why a collection's newest version is not served. It is null where it is served.
    """
    return responses.json_response({"collections": [_collection_response(hosted) for hosted in service.collections]})


@router.get(
    "/{name}",
    response_model=CollectionResponse,
    responses=errors(*ACCESS, UnknownCollection),
    summary="Get a collection",
)
@with_deadline
async def get_collection(name: CollectionName, service: ServiceDep) -> Response:
    """Get a collection's version, size and encoder, and why its newest version is not served."""
    return responses.json_response(_collection_response(service.collections.find(name)))


@router.post(
    "/{name}/reload",
    response_model=CollectionResponse,
    responses=errors(*ACCESS, UnknownCollection, VersionRefused),
    summary="Reload a collection",
    dependencies=[Depends(require_role("admin"))],
)
async def reload_collection(name: CollectionName, service: ServiceDep) -> Response:
    """Open the newest version of a collection and serve it in place of the old one. Needs the role `admin`.

    The response is sent once the new version is served. Queries continue meanwhile, and each is answered by one
    version. A version that can't be opened is refused with the reason, and the old one stays in service.

    The service also checks for new versions by itself, every `LOOKALIKE_WATCH_SECONDS`.
    """
    hosted = service.collections.find(name)
    try:
        await hosted.reload()
    except LookalikeError as error:
        raise VersionRefused(f"{error} [{error.code}]; {hosted.version or 'no version'} still serves") from error
    return responses.json_response(_collection_response(hosted))


def _collection_response(hosted: HostedCollection) -> dict[str, Any]:
    status = hosted.status
    facts: dict[str, Any] = {
        "name": hosted.name,
        "version": status.version or None,
        "swaps": status.swaps,
        "failure": None,
        "items": None,
        "encoder": None,
        "text": None,
        "languages": None,
        "limits": None,
        "created": None,
        "writable": hosted.is_writable,
        "pending_writes": hosted.pending_writes if hosted.is_writable else None,
    }
    if (refusal := status.refusal) is not None:
        facts["failure"] = {"code": refusal.code, "detail": refusal.detail, "version": refusal.version or None}
    if status.serving is not None:
        searcher = status.serving.pipeline.searcher
        manifest = searcher.collection.manifest
        facts["items"], facts["created"] = len(searcher.collection), manifest.created
        spec = searcher.encoder.spec
        facts["encoder"], facts["text"] = manifest.encoder.name, spec.text
        facts["languages"], facts["limits"] = list(spec.languages), spec.limits
    return facts
