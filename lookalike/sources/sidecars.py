"""Captions and metadata beside the images of a folder.

    a.txt                         captions of a.jpg, one a line
    a.json, a.jpg.json            metadata: each key becomes a column
    a.jpg.supplemental-metadata.json    the same, of Google Takeout
    metadata.csv, .jsonl, .parquet      a table of the images in this folder and below, by the column `file_name`

The caption is the first of: the text file, the JSON's caption, the table's caption, Takeout's description. A file that
can't be used never costs the image: the first one is logged as a warning, further ones are logged as information.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import Any, Protocol

from lookalike.errors import SourceError
from lookalike.sources.columns import (
    MAX_CAPTION_BYTES,
    RESERVED_COLUMNS,
    captions_from_cell,
    captions_from_file,
    decode_text,
    merged_columns,
)
from lookalike.sources.item import composed, display_name
from lookalike.sources.metadata_file import METADATA_FILES, MetadataFile
from lookalike.sources.regular_file import read_regular_file
from lookalike.sources.table_columns import CAPTION_COLUMNS
from lookalike.sources.takeout import described_images, is_takeout, json_names, takeout_columns

MAX_JSON_BYTES = 1 << 20
"""Larger JSON files beside images are ignored, so that memory stays bounded: a mebibyte."""

_log = logging.getLogger(__name__)


class ReadSidecar(Protocol):
    """Returns the content of a file beside images, or raises SourceError."""

    def __call__(self, name: str, limit: int, *, cut: bool) -> bytes:
        """Read at most `limit` bytes; where `cut` is false, a larger file is an error."""
        ...


class IgnoredFiles:
    """Log of the files of a source that can't be used: the first one as a warning, further ones as information."""

    def __init__(self) -> None:
        self._level = logging.WARNING

    def add(self, error: Exception) -> None:
        """Log why a file is ignored."""
        _log.log(self._level, "a file beside an image is ignored: %s", error)
        self._level = logging.INFO


class Sidecars:
    """The files beside the images of a source. Folders are entered in depth-first order.

    Args:
        caption: the JSON key or table column of the caption, if the user named one.
    """

    def __init__(self, caption: str | None = None) -> None:
        self.ignored = IgnoredFiles()
        self.caption_keys = caption_keys(caption)
        self.caption_columns = (caption,) if caption else CAPTION_COLUMNS
        self._tables: list[tuple[Path, MetadataFile]] = []

    def enter(self, folder: Path, names: Collection[str]) -> FolderSidecars:
        """Return the files beside the images of a folder; `names` are those of everything in it."""
        self._tables = [(place, table) for place, table in self._tables if folder.is_relative_to(place)]
        used = set()
        for name in METADATA_FILES:
            if name in names:
                try:
                    self._tables.append((folder, MetadataFile(folder / name)))
                    used.add(name)
                except SourceError as error:
                    self.ignored.add(error)
        return FolderSidecars(self, folder, names, self._tables, used, partial(_read_file, folder))


class FolderSidecars:
    """The files beside the images of one folder.

    Args:
        source: of the folder.
        folder: its path.
        names: of everything in it.
        tables: of the folder and those above, with their places.
        used: names of those of the tables that are in this folder.
        read: returns the content of a file in it, by its name, limit and `cut` as in `read_regular_file`.

    Attributes:
        used: names of the files in this folder that gave metadata so far.
        types: Arrow types of columns of tables.
    """

    def __init__(
        self,
        source: Sidecars,
        folder: PurePath,
        names: Collection[str],
        tables: Sequence[tuple[PurePath, MetadataFile]],
        used: set[str],
        read: ReadSidecar,
    ) -> None:
        self.used = used
        self._source, self._folder, self._names, self._read = source, folder, names, read
        nearest_first = sorted(tables, key=lambda entry: -len(entry[0].parts))
        self._tables = [(folder.relative_to(place), table) for place, table in nearest_first]
        own = (*RESERVED_COLUMNS, *source.caption_columns)
        self.types = {
            name: kind
            for _, table in reversed(self._tables)
            for name, kind in table.types.items()
            if name not in own and not name.startswith("_")
        }

    def columns(self, image: str) -> dict[str, Any]:
        """Return the caption and the other columns of the image of this name."""
        if not (self._tables or self._endings):
            return {}
        stem = image.rpartition(".")[0] or image
        own = self._captions(image, stem)
        content = self._json(image, stem)
        row = self._row(image)
        own = own or pop_captions(content, self._source.caption_keys)
        own = own or pop_captions(row, self._source.caption_columns)
        if is_takeout(content):
            own = own or pop_captions(content, ("description",))
            content = takeout_columns(content) | {name: value for name, value in content.items() if value != ""}
        return merged_columns(own, {**row, **content})

    def _captions(self, image: str, stem: str) -> dict[str, Any]:
        if ".txt" not in self._endings:
            return {}
        for name in self._present(f"{name}{ending}" for name in (stem, image) for ending in (".txt", ".TXT")):
            try:
                data = self._read(name, MAX_CAPTION_BYTES, cut=True)
            except SourceError as error:
                self._source.ignored.add(error)
                continue
            self.used.add(name)
            if captions := captions_from_file(data):
                return captions
        return {}

    def _json(self, image: str, stem: str) -> dict[str, Any]:
        if ".json" not in self._endings:
            return {}
        plain = (f"{name}{ending}" for name in (image, stem) for ending in (".json", ".JSON"))
        content: dict[str, Any] = {}
        for name in self._present((*plain, *json_names(image, self._takeout))):
            try:
                data = self._read(name, MAX_JSON_BYTES, cut=False)
                content = parse_json(data, display_name(str(self._folder / name))) | content
                self.used.add(name)
            except SourceError as error:
                self._source.ignored.add(error)
        return content

    def _row(self, image: str) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for prefix, table in self._tables:
            columns = table.columns(display_name((prefix / image).as_posix())) | columns
        return columns

    def _present(self, candidates: Iterable[str]) -> Iterator[str]:
        """Yield the names in the folder that are canonically equivalent to a candidate, each once."""
        found: dict[str, None] = {}
        for name in candidates:
            if name in self._names:
                found[name] = None
            elif not name.isascii() and (same := self._composed_names.get(composed(name))):
                found[same] = None
        yield from found

    @cached_property
    def _composed_names(self) -> dict[str, str]:
        return {composed(name): name for name in self._names if not name.isascii()}

    @cached_property
    def _endings(self) -> set[str]:
        """Which endings of sidecars occur in the folder."""
        lower = [name.lower() for name in self._names]
        return {ending for ending in (".txt", ".json") if any(name.endswith(ending) for name in lower)}

    @cached_property
    def _takeout(self) -> dict[str, str]:
        return described_images(self._names)


def _read_file(folder: Path, name: str, limit: int, *, cut: bool) -> bytes:
    return read_regular_file(folder / name, limit, cut=cut)


def caption_keys(caption: str | None) -> tuple[str, str]:
    """Return the JSON keys of captions; `caption` is the one that the user named."""
    return caption or "caption", "captions"


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """Return the object of a JSON file; another value becomes the column `json`.

    Raises:
        SourceError: it is not JSON, or too large; the message has its name.
    """
    if len(data) > MAX_JSON_BYTES:
        raise SourceError(f"{name} has {len(data):,} bytes; the limit for such a file is {MAX_JSON_BYTES:,}")
    try:
        content = json.loads(decode_text(data))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name} is not JSON: {error}") from error
    return content if isinstance(content, dict) else {"json": content}


def pop_captions(columns: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Remove the first of the named columns that holds captions, and return them."""
    for name in names:
        if name in columns and (captions := captions_from_cell(columns[name])):
            del columns[name]
            return captions
    return {}
