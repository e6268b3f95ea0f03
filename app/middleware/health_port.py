"""A port that serves the health paths alone."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from app.middleware.root_path import route_path


class HealthPortMiddleware:
    """Rejects requests for other paths that arrive at the health port; other ports are not affected."""

    def __init__(self, app: ASGIApp, port: int, paths: frozenset[str]) -> None:
        self.app = app
        self.port = port
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, or raise a 404."""
        if (
            scope["type"] == "http"
            and (scope.get("server") or ("", 0))[1] == self.port
            and route_path(scope) not in self.paths
        ):
            raise HTTPException(404, f"port {self.port} serves {', '.join(sorted(self.paths))} alone")
        await self.app(scope, receive, send)
