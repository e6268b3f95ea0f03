"""Python client of Lookalike, a self-hosted image similarity search."""

from lookalike_client.client import Client
from lookalike_client.errors import ApiError, ConnectionFailed, LookalikeError, ResponseInvalid
from lookalike_client.inputs import Part, SearchOptions, SearchRequest
from lookalike_client.results import (
    CollectionInfo,
    Comparison,
    Count,
    Facets,
    FieldFacet,
    Hit,
    Item,
    ItemDetails,
    Items,
    Ready,
    SearchResults,
    StageStats,
    Thumbnail,
)
from lookalike_client.retries import Retries

__all__ = [
    "ApiError",
    "Client",
    "CollectionInfo",
    "Comparison",
    "ConnectionFailed",
    "Count",
    "Facets",
    "FieldFacet",
    "Hit",
    "Item",
    "ItemDetails",
    "Items",
    "LookalikeError",
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
