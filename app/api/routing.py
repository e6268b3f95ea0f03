"""Routers whose routes apply what their endpoints declare; see `app.api.request_admission`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, params
from fastapi.routing import APIRoute
from typing_extensions import override

from app.api.dependencies import collection_name
from app.api.openapi import errors
from app.api.request_admission import Handler, apply_declaration
from app.errors import UnknownCollection
from app.middleware.root_path import root_path

_DEFAULT, _NAMED = "/v1", "/v1/collections/{name}"


class Route(APIRoute):
    """A route that applies the admission and the deadline that its endpoint declares."""

    @override
    def get_route_handler(self) -> Handler:
        return apply_declaration(super().get_route_handler(), self.endpoint)


class Router(APIRouter):
    """A router of such routes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=Route, **options)


class CollectionRouter(Router):
    """A router of a collection's resource: each route has a path for the default collection, and one for any by name.

    A route declares the rest of its path: `/search/text` is found at `/v1/search/text` and at
    `/v1/collections/{name}/search/text`.
    """

    @override
    def add_api_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        dependencies: Sequence[params.Depends] | None = None,
        responses: dict[int | str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        super().add_api_route(_DEFAULT + path, endpoint, dependencies=dependencies, responses=responses, **options)
        super().add_api_route(
            _NAMED + path,
            endpoint,
            dependencies=[Depends(collection_name), *(dependencies or [])],
            responses={**errors(UnknownCollection), **(responses or {})},
            **options,
        )


def collection_path(request: Request) -> str:
    """Return the path of a request's collection, with the root path."""
    name = request.path_params.get("name")
    path = _NAMED.format(name=quote(name, safe="")) if name else _DEFAULT
    return f"{root_path(request.scope)}{path}"
