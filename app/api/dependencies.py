"""What a route may ask for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from app.execution.pipeline import QueryPipeline
from app.service import Service
from app.settings import Settings


async def _service(request: Request) -> Service:  # async, or FastAPI would run it on a thread of its own
    return _of(request)


def _of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


Name = Annotated[str, Path(description="The collection's name.", examples=["gallery"])]


async def named(name: Name) -> None:
    """For the API's document; `name` is read from the path by whoever needs it."""


async def _pipeline(request: Request) -> QueryPipeline:
    return await _of(request).collections.pipeline(request.path_params.get("name"))


async def _ready(request: Request) -> QueryPipeline:
    return _of(request).require_ready()


async def _settings(request: Request) -> Settings:
    return _of(request).settings


PipelineDep = Annotated[QueryPipeline, Depends(_pipeline)]
ReadyDep = Annotated[QueryPipeline, Depends(_ready)]
ServiceDep = Annotated[Service, Depends(_service)]
SettingsDep = Annotated[Settings, Depends(_settings)]
