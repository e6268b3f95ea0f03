"""GET /v1/items/{id}/original, and /v1/item/original with a parameter `id`: the files that items were indexed from.

Ids in a path follow the rules of `app.api.items`: an item whose own id ends in `/original` needs its slash encoded, or
the parameter.
"""

from __future__ import annotations

import hashlib
import re
from email.utils import parsedate_to_datetime
from typing import Any

from fastapi import Depends, Request
from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from app.api.dependencies import PipelineDep
from app.api.items import ItemId, ItemIdParameter, item_response
from app.api.openapi import ACCESS, ADMISSION, errors
from app.api.request_admission import admitted
from app.api.routing import CollectionRouter
from app.auth.authentication import require_role
from app.errors import NoOriginal, OriginalsDisabled, RangeUnsatisfiable, RequestError
from app.execution.originals import Original
from app.execution.pipeline import QueryPipeline
from lookalike.errors import UnknownItem

router = CollectionRouter(tags=["items"], dependencies=[Depends(require_role("read"))])

_RANGE = re.compile(r"bytes=\s*(\d+-\d*|-\d+)(\s*,\s*(\d+-\d*|-\d+))*\s*", re.IGNORECASE)
_UNSATISFIABLE = 416
_ERRORS = errors(*ACCESS, *ADMISSION, UnknownItem, OriginalsDisabled, NoOriginal, RangeUnsatisfiable)
_ORIGINAL: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": {}}, "description": "The file, with the media type of its content."},
    206: {"content": {"image/*": {}}, "description": "The part of the file that `Range` names."},
    304: {"description": "The file is the one that `If-None-Match` or `If-Modified-Since` describes."},
}


@router.head("/items/{item_id:path}/original", include_in_schema=False)
@router.get(
    "/items/{item_id:path}/original",
    responses={**_ERRORS, **_ORIGINAL},
    response_class=Response,
    summary="Get an original",
)
@admitted("read")
async def get_original(item_id: ItemId, request: Request, pipeline: PipelineDep) -> Response:
    """Get the image file that an item was indexed from. `original_url` of an item is its URL.

    The service must run with `LOOKALIKE_ORIGINALS=true`, and have the folders of the sources at the paths of the job.
    Only files below these folders are served, and only images: the content decides, and gives the media type. Images
    in tars, in the bytes of tables or in buckets, and those that were written over HTTP, have no original.

    The response has `ETag` and `Last-Modified`, and takes `Range` and `If-Range`.

    An item whose own id ends in `/original` needs that slash encoded: `/v1/items/cup%2Foriginal`.
    """
    if not request.scope.get("raw_path", b"/original").endswith(b"/original"):
        return await item_response(f"{item_id}/original", request, pipeline)
    return await _original(item_id, request, pipeline)


@router.head("/item/original", include_in_schema=False)
@router.get(
    "/item/original",
    responses={**_ERRORS, **errors(RequestError), **_ORIGINAL},
    response_class=Response,
    summary="Get an original by a parameter",
)
@admitted("read")
async def get_original_by_parameter(item_id: ItemIdParameter, request: Request, pipeline: PipelineDep) -> Response:
    """Get an original like `/v1/items/{id}/original`, of an item with any id."""
    return await _original(item_id, request, pipeline)


async def _original(item_id: str, request: Request, pipeline: QueryPipeline) -> Response:
    response = _OriginalResponse(await pipeline.original(item_id))
    if not response.is_unmodified(request):
        return response
    response.original.file.close()
    kept = ("etag", "last-modified", "cache-control")
    return Response(status_code=304, headers={name: response.headers[name] for name in kept})


class _OriginalResponse(FileResponse):
    """Sends an opened file, and closes it."""

    def __init__(self, original: Original) -> None:
        status = original.status
        stamp = f"{status.st_size}-{status.st_mtime_ns}".encode()
        super().__init__(
            f"/dev/fd/{original.file.fileno()}",  # the file that was checked, whatever lies at its path now
            headers={
                "ETag": f'"{hashlib.blake2b(stamp, digest_size=12).hexdigest()}"',
                "Cache-Control": "private, no-cache",  # a browser asks whether the file has changed
            },
            media_type=original.media_type,
            filename=original.name,
            stat_result=status,
            content_disposition_type="inline",
        )
        self.original = original

    def is_unmodified(self, request: Request) -> bool:
        """Return whether the client has this file already."""
        if (tags := request.headers.get("if-none-match")) is not None:
            return self.headers["etag"] in tags or tags.strip() == "*"
        try:
            since = parsedate_to_datetime(request.headers["if-modified-since"])
        except (KeyError, ValueError):
            return False
        return int(self.original.status.st_mtime) <= since.timestamp()

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file. Raises RangeUnsatisfiable."""

        async def send_wrapper(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _UNSATISFIABLE:
                size = self.original.status.st_size
                raise RangeUnsatisfiable(
                    f"the file has {size:,} bytes, and the range begins behind them; ask for less", f"bytes */{size}"
                )
            await send(message)

        try:
            await super().__call__(_without_invalid_range(scope), receive, send_wrapper)
        finally:
            self.original.file.close()


def _without_invalid_range(scope: Scope) -> Scope:
    """Return the scope without a `Range` that is not one of bytes: RFC 9110 has servers ignore it."""
    headers = MutableHeaders(raw=list(scope["headers"]))
    if (asked := headers.get("range")) is None or _is_range(asked):
        return scope
    del headers["range"]
    return {**scope, "headers": headers.raw}


def _is_range(text: str) -> bool:
    if not _RANGE.fullmatch(text):
        return False
    pairs = (part.strip().split("-") for part in text.partition("=")[2].split(","))
    return all(not (first and last) or int(first) <= int(last) for first, last in pairs)
