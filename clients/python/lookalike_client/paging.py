"""Pages of results and items, as generators that yield calls and are sent the pages."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from lookalike_client import calls
from lookalike_client.call import Call
from lookalike_client.inputs import Part
from lookalike_client.results import Hit, Item

Entry = TypeVar("Entry")
Entry_co = TypeVar("Entry_co", covariant=True)


class Page(Protocol[Entry_co]):
    """A page of entries."""

    def __iter__(self) -> Iterator[Entry_co]:
        """Iterate over the entries."""

    def __len__(self) -> int:
        """Return their number."""


Pages = Generator[Call[Page[Entry]], Page[Entry], None]


def search_pages(
    base: str, parts: Sequence[Part], options: Mapping[str, Any], total: int | None, offset: int, page_size: int
) -> Pages[Hit]:
    """Yield the calls of a search, page by page."""
    kept = [part.loaded() for part in parts]  # a file can be read once only
    yield from _pages(
        lambda offset, limit: calls.search(base, kept, {**options, "offset": offset, "limit": limit}),
        total,
        offset,
        page_size,
    )


def item_pages(base: str, options: Mapping[str, Any], total: int | None, offset: int, page_size: int) -> Pages[Item]:
    """Yield the calls that list items, page by page."""
    return _pages(
        lambda offset, limit: calls.items(base, {**options, "offset": offset, "limit": limit}),
        total,
        offset,
        page_size,
    )


def next_call(pages: Pages[Entry], page: Page[Entry] | None) -> Call[Page[Entry]] | None:
    """Return the call for the page behind `page`, the first one for None; None if there are no more."""
    try:
        return next(pages) if page is None else pages.send(page)
    except StopIteration:
        return None


def _pages(
    call: Callable[[int, int], Call[Page[Entry]]], total: int | None, offset: int, page_size: int
) -> Pages[Entry]:
    """Yield calls, by offset and limit, until a page is not full or `total` entries have come."""
    if page_size < 1:
        raise ValueError(f"page_size is {page_size}; it must be 1 or more")
    left = total
    while left is None or left > 0:
        limit = page_size if left is None else min(page_size, left)
        page = yield call(offset, limit)
        if len(page) < limit:
            return
        offset += limit
        left = None if left is None else left - limit
