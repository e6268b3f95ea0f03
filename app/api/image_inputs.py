"""An image as a JSON body names it -> the image's bytes, whichever way they come."""

from __future__ import annotations

from fastapi import Request

from app.api.request_bodies import Base64Image, ImageUrl, decode_base64
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import ImageQuery, QueryPipeline


async def read_image(
    source: Base64Image | ImageUrl, pipeline: QueryPipeline, fetcher: ImageFetcher, request: Request
) -> ImageQuery:
    """Decodes base64 in the pool, fetches a URL.

    Raises:
        Base64Invalid, UrlDisabled, UrlRefused, UrlFailed: as their names say.
        Overloaded: since the query came, so many others have that it would wait too long.
    """
    if isinstance(source, ImageUrl):
        with request.state.aside():
            data = await fetcher.get(source.url)
        return ImageQuery(data)
    return ImageQuery(await pipeline.run_in_pool(lambda: decode_base64(source.text)))
