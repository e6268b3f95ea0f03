"""GET / (the search page), /docs and their static files. Nothing is loaded from another host; no script is inline."""

from __future__ import annotations

import mimetypes
from html import escape
from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from app.api.dependencies import SettingsDep
from app.middleware.root_path import root_path
from lookalike.images import EXTENSIONS

WEB = Path(__file__).resolve().parent.parent / "web"
SWAGGER_UI = Path(fastapi_offline.__file__).resolve().parent / "static"

router = APIRouter(include_in_schema=False)

_ACCEPT = ",".join(("image/*", *sorted(EXTENSIONS)))
# Browsers revalidate their copies: a page and its scripts must be of one release.
_REVALIDATE = {"Cache-Control": "no-cache"}


class _Files(StaticFiles):
    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(_REVALIDATE)
        return response


@router.api_route("/", methods=["GET", "HEAD"])
async def search_page(request: Request, settings: SettingsDep) -> Response:
    """The search page. Its file pickers offer all formats: `image/*` of a browser leaves some out."""
    page = (WEB / "index.html").read_text().replace('accept="image/*" multiple', f'accept="{_ACCEPT}" multiple')
    page = page.replace('data-max-bytes="33554432"', f'data-max-bytes="{settings.max_body_bytes}"')
    if root := root_path(request.scope):  # a proxy may publish the page without a slash at the end of its URL
        page = page.replace("<head>", f'<head><base href="{escape(root)}/">', 1)
    return HTMLResponse(page, headers=_REVALIDATE)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs_page() -> Response:
    """Swagger UI over /openapi.json."""
    return FileResponse(WEB / "docs.html", headers=_REVALIDATE)


def mount(app: FastAPI) -> None:
    """Add the pages and their files to an application."""
    mimetypes.init()  # it reads files, which needs a file descriptor: under load there may be none
    app.include_router(router)
    app.mount("/static/swagger-ui", _Files(directory=SWAGGER_UI), name="swagger-ui")
    app.mount("/static", GZipMiddleware(_Files(directory=WEB)), name="static")
