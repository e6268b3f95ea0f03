"""The image that a JSON body names -> its bytes."""

from __future__ import annotations

from app.api.request_admission import Slot
from app.api.request_bodies import Base64Image, ImageUrl, decode_base64
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import ImageQuery, QueryPipeline


async def read_image(
    source: Base64Image | ImageUrl, pipeline: QueryPipeline, fetcher: ImageFetcher, slot: Slot
) -> ImageQuery:
    """Decode base64 on a worker thread, or fetch a URL; meanwhile the query's slot is not in flight.

    Raises:
        Base64Invalid: the text is not base64.
        UrlDisabled, UrlRefused, UrlFailed: the URL is not fetched.
        Overloaded: while the URL was fetched, so many queries arrived that this one would wait too long.
    """
    if isinstance(source, ImageUrl):
        with slot.suspended():
            data = await fetcher.get(source.url)
        return ImageQuery(data)
    return ImageQuery(await pipeline.run_in_pool(lambda: decode_base64(source.text)))
