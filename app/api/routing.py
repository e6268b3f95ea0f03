"""Routers whose routes apply what they declare: admission, deadline and query parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, params
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.convertors import PathConvertor, register_url_convertor
from typing_extensions import override

from app.api.dependencies import collection_name
from app.api.openapi import errors
from app.api.request_admission import Handler, apply_declaration
from app.errors import RequestError, UnknownCollection
from app.middleware.root_path import root_path
from lookalike.messages import quoted, unknown_name


class _PathConvertor(PathConvertor):
    """Any text: Starlette's own one takes no line breaks, and drops one at the end."""

    regex = "(?s:.*)"


register_url_convertor("path", _PathConvertor())

_DEFAULT, _NAMED = "/v1", "/v1/collections/{name}"


class Route(APIRoute):
    """A route that applies the admission and the deadline of its endpoint, and knows its query parameters."""

    @override
    def get_route_handler(self) -> Handler:
        return apply_declaration(super().get_route_handler(), self.endpoint)

    @cached_property
    def query_parameters(self) -> frozenset[str]:
        """Names of the query parameters that the route declares, in `openapi_extra` or as arguments of its endpoint."""
        written = (self.openapi_extra or {}).get("parameters", [])
        return frozenset([each["name"] for each in written if each["in"] == "query"]) | {*_arguments(self.dependant)}


def _arguments(dependant: Dependant) -> Iterator[str]:
    yield from (argument.alias for argument in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _arguments(inner)


async def _require_known_query(request: Request) -> None:
    """Reject a query parameter that the route does not declare, or that is repeated.

    Paths outside /v1 accept any: they are for browsers and probes.

    Raises:
        RequestError: a parameter is unknown or repeated.
    """
    route = request.scope["route"]
    if not (request.query_params and isinstance(route, Route) and route.path.startswith(_DEFAULT)):
        return
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if name not in route.query_parameters:
            message = unknown_name("query parameter", name, route.query_parameters)
            raise RequestError(message, [{"field": name, "message": "unknown query parameter"}])
        if count > 1:
            raise RequestError(f"the query parameter {quoted(name)} is given {count} times; give it once")


class Router(APIRouter):
    """A router of such routes, which reject unknown query parameters after they have checked the caller."""

    def __init__(self, *, dependencies: Sequence[params.Depends] = (), **options: Any) -> None:
        super().__init__(route_class=Route, dependencies=[*dependencies, Depends(_require_known_query)], **options)


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
