"""The path under which a reverse proxy publishes the service: ASGI's `root_path`."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPathMiddleware:
    """Brings the paths of requests into ASGI's form: `path` begins with `root_path`.

    A proxy may forward the whole path, or remove the root path from it. Behind this middleware both look the same.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        """`root_path` is for requests whose scope has none; it has no slash at its end."""
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with the scope's `root_path`, `path` and `raw_path`."""
        if scope["type"] == "http" and (root := scope.get("root_path") or self.root_path):
            scope["root_path"] = root
            path = scope["path"]
            if path == root:
                _set_path(scope, path + "/", scope.get("raw_path", b"") + b"/")
            elif not path.startswith(f"{root}/"):
                _set_path(scope, root + path, root.encode() + scope.get("raw_path", b""))
        await self.app(scope, receive, send)


def root_path(scope: Scope) -> str:
    """Return a request's root path; a mounted application's `root_path` has the path of its mount, too."""
    path: str = scope.get("app_root_path", scope.get("root_path", ""))
    return path


def route_path(scope: Scope) -> str:
    """Return a request's path without the root path, as routes declare it."""
    path: str = scope["path"]
    return path.removeprefix(root_path(scope))


def _set_path(scope: Scope, path: str, raw_path: bytes) -> None:
    scope["path"] = path
    if "raw_path" in scope:
        scope["raw_path"] = raw_path
