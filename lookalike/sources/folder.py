"""Source of image files: a folder, read recursively in sorted order, or a single file.

The id is the path below the folder, with its extension, in POSIX form: files of the same name in two folders are two
items. `lookalike.sources.folder_walk` decides which files are images.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import override

from lookalike.errors import SourceError
from lookalike.messages import cut
from lookalike.sources.folder_walk import (
    Listing,
    begins_as_image,
    extension_of,
    has_image_extension,
    walk,
)
from lookalike.sources.ignore_rules import IgnoreRules
from lookalike.sources.item import (
    Item,
    Source,
    display_name,
    fingerprint,
    read_error,
    read_range,
    size_and_mtime,
    unreadable_item,
)
from lookalike.sources.place import SourcePlace
from lookalike.sources.scan_report import ScanReport
from lookalike.sources.sidecars import FolderSidecars, Sidecars


class FolderSource(Source):
    """All images below a folder, or one file.

    Args:
        path: the folder, or an image file.
        label: value of the column `source`.
        prefix: start of every id, `""` or `NAME/`.
        rules: what is excluded.
        read_elsewhere: files below the folder that other sources read, so that they are not skipped.
        caption: JSON key or table column of the caption, by default found by its name. A text file has precedence.
    """

    def __init__(
        self,
        path: Path,
        label: str,
        prefix: str = "",
        rules: IgnoreRules | None = None,
        read_elsewhere: Set[Path] = frozenset(),
        caption: str | None = None,
    ) -> None:
        self.label = label
        self._caption = caption
        self._report = ScanReport()
        self._root = path if path.is_dir() else path.parent
        self._only = None if path.is_dir() else path.name
        self._prefix = prefix
        self._rules = rules or IgnoreRules()
        self._read_elsewhere = read_elsewhere

    @property
    @override
    def count_is_maximum(self) -> bool:
        return True

    @property
    @override
    def place(self) -> SourcePlace:
        return SourcePlace("folder", self._root)

    @property
    @override
    def report(self) -> ScanReport:
        return self._report

    @override
    def estimated_count(self) -> int | None:
        # Counting names is fast compared with decoding. Files without a usual extension are counted unopened.
        return 1 if self._only else sum(len(listing.candidates) for listing in self.listings())

    def listings(self) -> Iterator[Listing]:
        """Walk through the folder; a new report is begun.

        Raises:
            SourceError: the folder itself can't be listed, or an ignore file is invalid.
        """
        self._report = ScanReport()
        for listing in walk(self._root, self._rules, self._report.excluded):
            if listing.error and listing.folder == self._root:
                raise read_error(self._root, listing.error) from listing.error
            if listing.error:
                self._report_unlisted(listing.folder)
            yield listing

    def __iter__(self) -> Iterator[Item]:
        sidecars = Sidecars(self._caption)
        if self._only:
            yield self._item(self._root, self._only, sidecars.enter(self._root, self._names_beside()))
            return
        for listing in self.listings():
            if listing.error:
                yield self._unlisted(listing.folder, listing.error)
            else:
                yield from self._items(listing, sidecars.enter(listing.folder, listing.names))

    def _report_unlisted(self, folder: Path) -> None:
        name = f"{self._prefix}{self._relative(folder)}/"
        if name not in self._report.unlisted[-1:]:
            self._report.unlisted.append(name)

    def _names_beside(self) -> Set[str]:
        try:
            return frozenset(os.listdir(self._root))
        except OSError:  # a readable file in a folder that can't be listed has no sidecars
            return frozenset()

    def _items(self, listing: Listing, beside: FolderSidecars) -> Iterator[Item]:
        for name in listing.candidates:
            if has_image_extension(name) or begins_as_image(listing.folder / name):
                yield self._item(listing.folder, name, beside)
            else:
                self._report.skipped[extension_of(name)] += 1
        for name in listing.others:
            if name not in beside.used and not (self._read_elsewhere and listing.folder / name in self._read_elsewhere):
                self._report.skipped[extension_of(name)] += 1

    def _unlisted(self, folder: Path, error: OSError) -> Item:
        name = self._relative(folder) + "/"
        item = unreadable_item(self._prefix + name, self.label, read_error(folder, error), {"path": name})
        return replace(item, unavailable=True)

    def _item(self, folder: Path, name: str, beside: FolderSidecars) -> Item:
        path = folder / name
        relative = self._relative(path)
        fallback_id = f"{self.label}/{relative}"  # every camera's folder has an IMG_0001.JPG
        columns: dict[str, Any] = {"path": relative}
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a named pipe would block
                raise SourceError(f"{cut(display_name(str(path)))} is not a regular file")
            columns |= beside.columns(name)
        except OSError as error:
            item = unreadable_item(self._prefix + relative, self.label, read_error(path, error), columns, fallback_id)
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                return item
            self._report_unlisted(folder)  # its names can be listed, but its files can't be reached
            return replace(item, unavailable=True)
        except SourceError as error:
            return unreadable_item(self._prefix + relative, self.label, error, columns, fallback_id)
        return Item(
            self._prefix + relative,
            self.label,
            fingerprint(*size_and_mtime(status)),
            partial(read_range, path),
            columns,
            fallback_id=fallback_id,
            types=beside.types,
        )

    def _relative(self, path: Path) -> str:
        return display_name(path.relative_to(self._root).as_posix())
