"""The parts of a query in JSON -> what the pipeline searches by."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.admission import RequestKind
from app.api import schemas
from app.api.image_inputs import read_image
from app.api.request_admission import Slot
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import CombinedQuery, ImageQuery, ItemQuery, Query, QueryPipeline, TextQuery, VectorQuery
from lookalike.query import unit_embedding


async def read_query(
    parts: Sequence[schemas.Part], pipeline: QueryPipeline, fetcher: ImageFetcher, slot: Slot
) -> Query | CombinedQuery:
    """Return the query of one or several parts.

    Raises:
        QueryError: an embedding does not fit the collection.
        Base64Invalid, UrlDisabled, UrlRefused, UrlFailed, Overloaded: as `read_image` does.
    """
    read = [_read_part(part, position, pipeline, fetcher, slot) for position, part in enumerate(parts)]
    queries = await asyncio.gather(*read)
    if len(queries) == 1 and parts[0].weight > 0 and not isinstance(queries[0], VectorQuery):
        return queries[0]
    return CombinedQuery([(query, part.weight) for query, part in zip(queries, parts, strict=True)])


def combined(images: Sequence[ImageQuery]) -> Query | CombinedQuery:
    """Return the query of one or several images of equal weight."""
    return images[0] if len(images) == 1 else CombinedQuery([(image, 1.0) for image in images])


def admission_kind(parts: Sequence[schemas.Part]) -> RequestKind:
    """Return the kind of a query: that of its most expensive part."""
    if any(part.image_source is not None for part in parts):
        return "image"
    return "text" if any(part.text is not None for part in parts) else "item"


async def _read_part(
    part: schemas.Part, position: int, pipeline: QueryPipeline, fetcher: ImageFetcher, slot: Slot
) -> Query | VectorQuery:
    if part.image_source is not None:
        return await read_image(part.image_source, pipeline, fetcher, slot)
    if part.embedding is not None:
        dim = pipeline.searcher.encoder.spec.dim
        return VectorQuery(*unit_embedding(part.embedding, dim, f"query.{position}.embedding"))
    return TextQuery(part.text) if part.text is not None else ItemQuery(part.id or "")
