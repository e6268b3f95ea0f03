"""An image as a JSON body names it -> the image's bytes, whichever way they come."""

from __future__ import annotations

from fastapi import Request

from app.api.request_bodies import Base64, Link, decode_base64
from app.execution.image_fetcher import Fetcher
from app.execution.pipeline import ImageSide, Queries


async def read_image(source: Base64 | Link, queries: Queries, fetcher: Fetcher, request: Request) -> ImageSide:
    """Decodes base64 in the pool, fetches a URL.

    Raises:
        Base64Invalid, UrlDisabled, UrlRefused, UrlFailed: as their names say.
        Overloaded: since the query came, so many others have that it would wait too long.
    """
    if isinstance(source, Link):
        with request.state.aside():
            data = await fetcher.get(source.url)
        return ImageSide(data)
    return ImageSide(await queries.in_pool(lambda: decode_base64(source.text)))
