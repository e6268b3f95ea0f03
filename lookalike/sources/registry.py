"""Registry of source kinds, and the conversion of SOURCE arguments to sources. A new format is one line here."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lookalike.errors import SourceError, SourceNotFound
from lookalike.sources import parquet, tar
from lookalike.sources.folder import FolderSource, is_image
from lookalike.sources.item import ColumnNames, Source, display_name
from lookalike.sources.parquet import ParquetSource
from lookalike.sources.tar import TarSource

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)=(?P<path>.+)", re.DOTALL)

Opener = Callable[[Path, str, str, ColumnNames], Source]
REGISTRY: tuple[tuple[Callable[[Path], bool], Opener], ...] = (
    (Path.is_dir, lambda path, label, prefix, columns: FolderSource(path, label, prefix)),
    (
        lambda path: path.name.lower().endswith(tar.SUFFIXES),
        lambda path, label, prefix, columns: TarSource(path, label, prefix, columns.caption),
    ),
    (
        lambda path: path.name.lower().endswith(parquet.SUFFIXES),
        lambda path, label, prefix, columns: ParquetSource(path, label, prefix, columns),
    ),
    (lambda path: is_image(path.name), lambda path, label, prefix, columns: FolderSource(path, label, prefix)),
)
"""(predicate on a path, constructor); the first whose predicate holds is used."""


def open_sources(arguments: Sequence[str], columns: ColumnNames | None = None) -> list[Source]:
    """Open the sources that the arguments name, in their order.

    Args:
        arguments: each a folder, a tar, a Parquet file, an image, or a glob pattern; `NAME=PATH` adds the prefix
            `NAME/` to the ids.
        columns: names of a table's columns, if the user gives them.

    Raises:
        SourceNotFound: a path does not exist, or no file matches a pattern.
        SourceError: a file is of an unknown kind, or a table has no images.
    """
    expanded = map(_expanded, arguments)
    return [_open(path, name, columns or ColumnNames()) for paths, name in expanded for path in paths]


def _expanded(argument: str) -> tuple[list[Path], str]:
    name, text = "", argument
    named = _NAMED.fullmatch(argument)
    if named and not Path(argument).exists():
        name, text = named["name"], named["path"]
    path = Path(text).expanduser()
    if path.exists():
        return [path], name
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if matches:
        return matches, name
    if glob.has_magic(text):
        raise SourceNotFound(f"no file matches the pattern {text!r}")
    raise SourceNotFound(
        f"{text!r} does not exist; give a folder, a .tar or .parquet file, an image, or a pattern of them"
    )


def _open(path: Path, name: str, columns: ColumnNames) -> Source:
    label = name or display_name(path.name or path.resolve().name or "/")
    for matches, opener in REGISTRY:
        if matches(path):
            return opener(path, label, f"{name}/" if name else "", columns)
    kinds = ", ".join((*tar.SUFFIXES, *parquet.SUFFIXES))
    raise SourceError(f"{path} is of an unknown kind; give a folder of images, or a file ending in {kinds}")
