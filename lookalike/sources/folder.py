"""Source of image files: a folder, read recursively in sorted order, or a single file.

The id is the path below the folder, with its extension, in POSIX form: files of the same name in two folders are two
items. Hidden files are skipped. Links to folders are followed once, unless they lead back into the source.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typing_extensions import override

from lookalike.errors import SourceError
from lookalike.images import EXTENSIONS
from lookalike.sources.columns import MAX_CAPTION_BYTES, captions_from_file
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


def is_image(name: str) -> bool:
    """Return whether a file name has an image's extension, in any case, and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


class FolderSource(Source):
    """All images below a folder, or one file.

    Args:
        path: the folder, or an image file.
        label: value of the column `source`.
        prefix: start of every id, `""` or `NAME/`.
    """

    def __init__(self, path: Path, label: str, prefix: str = "") -> None:
        self.label = label
        self._root = path if path.is_dir() else path.parent
        self._only = None if path.is_dir() else path.name
        self._prefix = prefix

    @override
    def estimated_count(self) -> int | None:
        # Exact: counting names is fast compared with decoding.
        return 1 if self._only else sum(len(images) for _, images, _ in self._walk())

    def __iter__(self) -> Iterator[Item]:
        if self._only:
            yield self._item(self._root, self._only, set(os.listdir(self._root)))
            return
        for folder, images, names in self._walk():
            if isinstance(names, OSError):
                name = self._relative(folder) + "/"
                yield unreadable_item(self._prefix + name, self.label, read_error(folder, names), {"path": name})
                continue
            for name in images:
                yield self._item(folder, name, names)

    def _walk(self) -> Iterator[tuple[Path, list[str], set[str] | OSError]]:
        """Yield (folder, sorted image names, all names in it); an unreadable folder counts as one image."""
        visited = {_identity(self._root)}
        pending = [self._root]
        while pending:
            folder = pending.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                yield folder, [""], error
                continue
            folders = [entry for entry in entries if not entry.name.startswith(".") and _is_folder(entry)]
            names = {entry.name for entry in entries}
            yield folder, sorted(filter(is_image, names - {entry.name for entry in folders})), names
            # The stack is popped from its end, so the first folder by name is pushed last.
            pending += [Path(entry.path) for entry in reversed(folders) if self._should_enter(entry, visited)]

    def _should_enter(self, entry: os.DirEntry[str], visited: set[tuple[int, int]]) -> bool:
        if not entry.is_symlink():
            return True
        target = Path(os.path.realpath(entry.path))
        identity = _identity(target)
        if identity in visited or target.is_relative_to(os.path.realpath(self._root)):
            return False
        visited.add(identity)
        return True

    def _item(self, folder: Path, name: str, names: set[str]) -> Item:
        path = folder / name
        relative = self._relative(path)
        fallback_id = f"{self.label}/{relative}"  # every camera's folder has an IMG_0001.JPG
        columns: dict[str, Any] = {"path": relative}
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a named pipe would block
                raise SourceError(f"{display_name(str(path))} is not a regular file")
            caption = _caption_file(path, names)
            if caption is not None:
                columns |= captions_from_file(read_range(caption, size=MAX_CAPTION_BYTES))
        except OSError as error:
            return unreadable_item(self._prefix + relative, self.label, read_error(path, error), columns, fallback_id)
        except SourceError as error:
            return unreadable_item(self._prefix + relative, self.label, error, columns, fallback_id)
        return Item(
            self._prefix + relative,
            self.label,
            fingerprint(*size_and_mtime(status)),
            lambda: read_range(path),
            columns,
            fallback_id=fallback_id,
        )

    def _relative(self, path: Path) -> str:
        return display_name(path.relative_to(self._root).as_posix())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a broken link
        return False


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (-1, -1)
    return status.st_dev, status.st_ino


def _caption_file(path: Path, names: set[str]) -> Path | None:
    for ending in (".txt", ".TXT"):
        if path.stem + ending in names:
            return path.with_suffix(ending)
    return None
