"""Python client of Lookalike, a self-hosted image similarity search."""

from lookalike_client.async_client import AsyncClient
from lookalike_client.client import Client
from lookalike_client.errors import ApiError, ConnectionFailed, LookalikeError, ResponseInvalid
from lookalike_client.inputs import Part, SearchOptions, SearchRequest
from lookalike_client.results import (
    Classification,
    CollectionInfo,
    Comparison,
    Count,
    Embeddings,
    Facets,
    FieldFacet,
    FieldValue,
    Histogram,
    Hit,
    Item,
    ItemDetails,
    Items,
    Model,
    Prediction,
    Ready,
    SearchResults,
    SimilarityMatrix,
    StageStats,
    Thumbnail,
)
from lookalike_client.retries import Retries

__all__ = [
    "ApiError",
    "AsyncClient",
    "Classification",
    "Client",
    "CollectionInfo",
    "Comparison",
    "ConnectionFailed",
    "Count",
    "Embeddings",
    "Facets",
    "FieldFacet",
    "FieldValue",
    "Histogram",
    "Hit",
    "Item",
    "ItemDetails",
    "Items",
    "LookalikeError",
    "Model",
    "Part",
    "Prediction",
    "Ready",
    "ResponseInvalid",
    "Retries",
    "SearchOptions",
    "SearchRequest",
    "SearchResults",
    "SimilarityMatrix",
    "StageStats",
    "Thumbnail",
]
