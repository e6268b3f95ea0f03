"""Paths as routes declare them, which is how telemetry names requests: one name for all collections and items."""

from __future__ import annotations

from starlette.types import Scope

SHORT, NAMED = "/v1", "/v1/collections/{name}"
"""Where resources that belong to a collection are found; the short paths mean the default one."""
HEALTH = frozenset({"/livez", "/readyz", "/metrics"})
"""What the port for health alone answers."""


def declared(scope: Scope) -> str:
    """The declared path of the route that took a request, else what the door took it for; `other` for none of ours."""
    found: str | None = getattr(scope.get("route"), "path", None)
    if found is None:
        return str(scope.get("state", {}).get("route", "other"))
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if found.startswith(f"{SHORT}/") or not path.startswith(f"{SHORT}/"):
        return found
    # A route that is found under both knows only the rest of its path.
    return (NAMED if path.startswith(f"{SHORT}/collections/") else SHORT) + found
