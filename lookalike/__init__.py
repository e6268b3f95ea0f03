"""Image similarity search: by image, by text and by pair.

    with lookalike.open_collection("photos") as photos:
        for hit in photos.search(text="a cat", limit=3):
            print(hit.id, hit.score)

This is the public Python API (`docs/reference/python-api.md`) and the library that the service, the indexing job and
training share. A public name imports its libraries when it is first used: `import lookalike` itself loads none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lookalike import errors
from lookalike.errors import LookalikeError

if TYPE_CHECKING:
    from lookalike.api import (
        CollectionItem,
        Facet,
        Histogram,
        Hit,
        ImageInput,
        ImageSide,
        ItemSide,
        Limits,
        LoadedEncoder,
        Query,
        QueryPart,
        SearchableCollection,
        SearchResults,
        Side,
        Similarity,
        TextSide,
        ValueCount,
        load_encoder,
        open_collection,
    )

    __version__: str

__all__ = [
    "CollectionItem",
    "Facet",
    "Histogram",
    "Hit",
    "ImageInput",
    "ImageSide",
    "ItemSide",
    "Limits",
    "LoadedEncoder",
    "LookalikeError",
    "Query",
    "QueryPart",
    "SearchResults",
    "SearchableCollection",
    "Side",
    "Similarity",
    "TextSide",
    "ValueCount",
    "__version__",
    "errors",
    "load_encoder",
    "open_collection",
]

if not TYPE_CHECKING:  # type checkers would take any misspelt name for one that this function returns

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value = _version()
        elif name in __all__:
            from lookalike import api

            value = getattr(api, name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lookalike")
    except PackageNotFoundError:  # a checkout that was never installed
        return "unknown"
