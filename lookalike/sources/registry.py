"""SOURCE arguments -> sources, told apart by their shape; the one place to add a line for another input format."""

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
"""(whether a path has this shape, what opens it); the first that fits."""


def open_sources(arguments: Sequence[str], columns: ColumnNames | None = None) -> list[Source]:
    """The sources that the arguments name, in their order.

    Args:
        arguments: each a folder, a tar, a Parquet file, an image, or a pattern of them; `NAME=PATH` puts `NAME/`
            before the ids.
        columns: which columns of a table play a part, where the user says so.

    Raises:
        SourceNotFound: nothing stands at a path, or no file fits a pattern.
        SourceError: a file of an unknown kind, or a table without images.
    """
    expanded = map(_expanded, arguments)
    return [_open(path, name, columns or ColumnNames()) for paths, name in expanded for path in paths]


def _expanded(argument: str) -> tuple[list[Path], str]:
    name, text = "", argument
    match = _NAMED.fullmatch(argument)
    if match and not Path(argument).exists():
        name, text = match["name"], match["path"]
    path = Path(text).expanduser()
    if path.exists():
        return [path], name
    found = [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]
    if found:
        return found, name
    if glob.has_magic(text):
        raise SourceNotFound(f"no file fits the pattern {text!r}")
    raise SourceNotFound(f"nothing stands at {text!r}; give a folder, a .tar, a .parquet file or a pattern of them")


def _open(path: Path, name: str, columns: ColumnNames) -> Source:
    label = name or display_name(path.name or path.resolve().name or "/")
    for fits, opener in REGISTRY:
        if fits(path):
            return opener(path, label, f"{name}/" if name else "", columns)
    kinds = ", ".join((*tar.SUFFIXES, *parquet.SUFFIXES))
    raise SourceError(f"{path} is no source that is known: give a folder of images, or a file ending in {kinds}")
