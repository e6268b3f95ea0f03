"""The offline job: encodes images and publishes a collection. The service never imports it.

    summary = indexing.index("images", "photos")

`index` and `IndexSummary` are public (`docs/reference/python-api.md`); they import their libraries when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexing.api import IndexSummary, index

__all__ = ["IndexSummary", "index"]

if not TYPE_CHECKING:  # type checkers would take any misspelt name for one that this function returns

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from indexing import api

        globals()[name] = value = getattr(api, name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
