"""What a route may ask for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from app.execution.pipeline import Queries
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


async def _queries(request: Request) -> Queries:
    return await _of(request).collections.queries(request.path_params.get("name"))


async def _ready(request: Request) -> Queries:
    return _of(request).require_ready()


async def _settings(request: Request) -> Settings:
    return _of(request).settings


QueriesDep = Annotated[Queries, Depends(_queries)]
ReadyDep = Annotated[Queries, Depends(_ready)]
ServiceDep = Annotated[Service, Depends(_service)]
SettingsDep = Annotated[Settings, Depends(_settings)]
