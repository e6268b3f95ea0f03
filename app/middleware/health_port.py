"""A port that serves the health paths alone."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import problem_response


class HealthPortMiddleware:
    """Rejects requests for other paths that arrive at the health port; other ports are not affected."""

    def __init__(self, app: ASGIApp, port: int, paths: frozenset[str]) -> None:
        self.app = app
        self.port = port
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, or respond 404."""
        if (
            scope["type"] == "http"
            and (scope.get("server") or ("", 0))[1] == self.port
            and scope["path"] not in self.paths
        ):
            detail = f"port {self.port} serves {', '.join(sorted(self.paths))} alone"
            return await problem_response(scope["path"], 404, "not_found", detail)(scope, receive, send)
        await self.app(scope, receive, send)
