"""Dependencies of routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from app.execution.pipeline import QueryPipeline
from app.service import Service
from app.settings import Settings

# They are coroutines because FastAPI would run functions on a thread.


async def _service(request: Request) -> Service:
    return _service_of(request)


def _service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


CollectionName = Annotated[str, Path(description="Name of the collection.", examples=["my-collection"])]


async def collection_name(name: CollectionName) -> str:
    """Return the collection that the path names."""
    return name


async def _pipeline(request: Request) -> QueryPipeline:
    return await _service_of(request).collections.pipeline(request.path_params.get("name"))


async def _ready(request: Request) -> QueryPipeline:
    return _service_of(request).require_ready()


async def _settings(request: Request) -> Settings:
    return _service_of(request).settings


PipelineDep = Annotated[QueryPipeline, Depends(_pipeline)]
ReadyDep = Annotated[QueryPipeline, Depends(_ready)]
ServiceDep = Annotated[Service, Depends(_service)]
SettingsDep = Annotated[Settings, Depends(_settings)]
