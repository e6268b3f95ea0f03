"""Python client of Lookalike, a self-hosted image similarity search."""

from lookalike_client.async_client import AsyncClient
from lookalike_client.client import Client
from lookalike_client.errors import ApiError, ConnectionFailed, LookalikeError, ResponseInvalid
from lookalike_client.inputs import Part, SearchOptions, SearchRequest
from lookalike_client.results import (
    CollectionInfo,
    Comparison,
    Count,
    Embeddings,
    Facets,
    FieldFacet,
    Hit,
    Item,
    ItemDetails,
    Items,
    Model,
    Ready,
    SearchResults,
    StageStats,
    Thumbnail,
)
from lookalike_client.retries import Retries

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "CollectionInfo",
    "Comparison",
    "ConnectionFailed",
    "Count",
    "Embeddings",
    "Facets",
    "FieldFacet",
    "Hit",
    "Item",
    "ItemDetails",
    "Items",
    "LookalikeError",
    "Model",
    "Part",
    "Ready",
    "ResponseInvalid",
    "Retries",
    "SearchOptions",
    "SearchRequest",
    "SearchResults",
    "StageStats",
    "Thumbnail",
]
