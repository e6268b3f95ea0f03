"""What a route may ask for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from app.queries import Queries
from app.settings import Settings
from app.startup import Service


def service(request: Request) -> Service:
    """The application's one service."""
    found: Service = request.app.state.service
    return found


async def _queries(request: Request) -> Queries:
    return service(request).queries


async def _ready(request: Request) -> Queries:
    return service(request).require_ready()


async def _settings(request: Request) -> Settings:
    return service(request).settings


QueriesDep = Annotated[Queries, Depends(_queries)]
ReadyDep = Annotated[Queries, Depends(_ready)]
ServiceDep = Annotated[Service, Depends(service)]
SettingsDep = Annotated[Settings, Depends(_settings)]
