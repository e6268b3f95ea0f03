"""The images that `lookalike add` is given, as items with the ids that `lookalike index` would give them."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from indexing.id_set import IdSet
from lookalike.errors import DuplicateId, LookalikeError, SourceError
from lookalike.json_values import json_ready
from lookalike.metadata import id_hash
from lookalike.paths import exists
from lookalike.sources.item import Item, Source, display_name, unreadable_item
from lookalike.sources.registry import open_sources

_COLUMNS_OF_SOURCES = ("path", "source")
"""Columns that only the indexing job writes."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """An image to add.

    Attributes:
        id: of the item.
        load: returns the bytes of the image file; raises LookalikeError. Safe to call from any thread.
        metadata: JSON values by column.
    """

    id: str
    load: Callable[[], bytes]
    metadata: Mapping[str, Any]


class NewItems:
    """The images that arguments name, in their order; what can't be read is an image that fails.

    Args:
        arguments: each an image, a folder, a tar, a Parquet file or a glob pattern, or `NAME=` and one of these.
        metadata: values by column, of every item; they replace what was found beside an image.
        item_id: id of the only image, in place of the one that is made of its path.
        prefix: start of every id.
    """

    def __init__(
        self, arguments: Sequence[str], metadata: Mapping[str, Any], item_id: str | None = None, prefix: str = ""
    ) -> None:
        self._metadata, self._id, self._prefix = metadata, item_id, prefix
        paths = chain.from_iterable(map(_expanded, arguments))
        self._sources: list[Source | Item] = [source for path in paths for source in _opened(path)]

    def estimated_count(self) -> int | None:
        """Return the approximate number of images; None if only reading all of them would tell."""
        counts = [1 if isinstance(each, Item) else each.estimated_count() for each in self._sources]
        return None if None in counts else sum(count or 0 for count in counts)

    def __iter__(self) -> Iterator[NewItem]:
        seen = IdSet()
        for source in self._sources:
            for item in [source] if isinstance(source, Item) else source:
                yield self._new_item(item, seen)

    def _new_item(self, item: Item, seen: IdSet) -> NewItem:
        if self._id is not None and not seen.add(0):
            raise SourceError("--id names one image, but there are several; use --prefix for the ids of many")
        ids = [self._id] if self._id is not None else [item.id, *filter(None, [item.fallback_id])]
        named = [self._prefix + each for each in ids]
        unique = next((each for each in named if seen.add(id_hash(each))), None)
        found = {name: json_ready(value) for name, value in item.columns.items() if name not in _COLUMNS_OF_SOURCES}
        if unique is None:
            error = DuplicateId(
                f"id {named[0]!r} was seen before; write NAME=PATH to put NAME/ before the ids of a path"
            )
            return NewItem(named[0], unreadable_item(item.id, item.source, error).load, {})
        return NewItem(unique, item.load, {**found, **self._metadata})


def _expanded(argument: str) -> list[str]:
    """Return the files that a pattern matches; the argument itself if it is none, or matches none."""
    if not glob.has_magic(argument) or exists(Path(argument)):
        return [argument]
    return sorted(glob.glob(str(Path(argument).expanduser()), recursive=True)) or [argument]


def _opened(argument: str) -> Sequence[Source | Item]:
    try:
        return open_sources([argument])
    except LookalikeError as error:
        name = display_name(argument)
        return [unreadable_item(name, name, error)]
