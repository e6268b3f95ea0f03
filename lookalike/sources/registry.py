"""Registry of source kinds, and the conversion of SOURCE arguments to sources. A new format is one line here."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lookalike.errors import SourceError, SourceNotFound
from lookalike.object_storage import is_object_url
from lookalike.paths import exists
from lookalike.sources import parquet, tar
from lookalike.sources.bucket_sources import open_bucket_sources
from lookalike.sources.folder import FolderSource
from lookalike.sources.folder_walk import COLLECTION_NAMES, begins_as_image, has_image_extension
from lookalike.sources.ignore_rules import IgnoreRules, ignore_rules
from lookalike.sources.item import ColumnNames, Source, display_name, read_error
from lookalike.sources.parquet import ParquetSource
from lookalike.sources.shard_folder import shards_below
from lookalike.sources.source_file import LocalFile
from lookalike.sources.tar import TarSource

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)=(?P<path>.+)", re.DOTALL)

Opener = Callable[[Path, str, str, ColumnNames], Source]
REGISTRY: tuple[tuple[Callable[[Path], bool], Opener], ...] = (
    (
        lambda path: path.name.lower().endswith(tar.SUFFIXES),
        lambda path, label, prefix, columns: TarSource(LocalFile(path), label, prefix, columns.caption),
    ),
    (
        lambda path: path.name.lower().endswith(parquet.SUFFIXES),
        lambda path, label, prefix, columns: ParquetSource(LocalFile(path), label, prefix, columns),
    ),
    (
        lambda path: has_image_extension(path.name) or begins_as_image(path),
        lambda path, label, prefix, columns: FolderSource(path, label, prefix, caption=columns.caption),
    ),
)
"""(predicate on a file's path, constructor); the first whose predicate holds is used."""


def open_sources(
    arguments: Sequence[str], columns: ColumnNames | None = None, exclude: Sequence[str] = ()
) -> list[Source]:
    """Open the sources that the arguments name, in their order.

    Args:
        arguments: each a folder, a tar, a Parquet file, an image, or a glob pattern, on a local disk or in a bucket
            as `s3://BUCKET/KEY`; `NAME=PATH` adds the prefix `NAME/` to the ids.
        columns: names of a table's columns, if the user gives them.
        exclude: patterns of files and folders to leave out of folders, in gitignore syntax.

    Returns:
        The sources. A folder without images that holds tars or Parquet files is followed by a source for each of these.

    Raises:
        SourceNotFound: a path does not exist, or no file matches a pattern.
        SourceError: a path can't be read, a file is of an unknown kind, a table has no images, or a pattern is
            invalid.
        ExtraMissing: a URL is given, and s3fs is not installed.
    """
    rules, names = ignore_rules(exclude), columns or ColumnNames()
    sources: list[Source] = []
    for argument in arguments:
        named = _NAMED.fullmatch(argument)
        name, url = (named["name"], named["path"]) if named else ("", argument)
        if is_object_url(url):
            sources += open_bucket_sources(url, name, names, rules)
            continue
        try:
            paths, name = _expanded(argument, rules)
            for path in paths:
                sources += _open_folder(path, name, names, rules) if path.is_dir() else [_open(path, name, names)]
        except OSError as error:
            raise read_error(Path(error.filename or argument), error) from error
    return sources


def _expanded(argument: str, rules: IgnoreRules) -> tuple[list[Path], str]:
    name, text = "", argument
    named = _NAMED.fullmatch(argument)
    if named and not exists(Path(argument)):
        name, text = named["name"], named["path"]
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise SourceNotFound(f"{text!r} begins with the home folder of an unknown user") from error
    try:
        if exists(path):
            return [path], name
    except OSError:
        if not glob.has_magic(text):
            raise
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    _require_searched(path, rules)
    if matches:
        return matches, name
    if glob.has_magic(text):
        raise SourceNotFound(f"no file matches the pattern {text!r}")
    raise SourceNotFound(
        f"{text!r} does not exist; give a folder, a .tar or .parquet file, an image, or a pattern of them"
    )


def _require_searched(pattern: Path, rules: IgnoreRules) -> None:
    """Check that the folders in which a pattern looks for files can be listed, which `glob` does not tell.

    Raises:
        OSError: a folder can't be listed, and is not excluded.
    """
    if not glob.has_magic(str(pattern)):
        return
    above = [parent for parent in pattern.parents if glob.has_magic(str(parent))]
    start = (above or [pattern])[-1].parent
    for parent in (start, *reversed(above)):
        for match in glob.glob(f"{parent}/", recursive=True):
            folder = Path(match)
            relative = folder.relative_to(start).as_posix()
            if folder == start or not rules.excluded_by(f"{relative}/"):
                os.scandir(folder).close()


def _open_folder(path: Path, name: str, columns: ColumnNames, rules: IgnoreRules) -> list[Source]:
    shards = shards_below(path, rules)
    if all((path / name).exists() for name in COLLECTION_NAMES):
        raise SourceError(f"{path} is a collection; name the folder of the images themselves")
    prefix = f"{name}/" if name else ""
    folder = FolderSource(path, _label(path, name), prefix, rules, frozenset(shards), columns.caption)
    below = [(shard, shard.parent.relative_to(path).parts) for shard in shards]
    # Tars of the same name in two sub-folders differ by these; ids of tables come from their columns.
    return [
        folder,
        *(
            _open(shard, name, columns, parts if shard.name.lower().endswith(tar.SUFFIXES) else ())
            for shard, parts in below
        ),
    ]


def _label(path: Path, name: str) -> str:
    return name or display_name(path.name or path.resolve().name or "/")


def _open(path: Path, name: str, columns: ColumnNames, folders: Sequence[str] = ()) -> Source:
    """Open a file; the names of `folders` are added to the prefix of the ids."""
    prefix = "".join(f"{part}/" for part in (name, *map(display_name, folders)) if part)
    for matches, opener in REGISTRY:
        if matches(path):
            return opener(path, _label(path, name), prefix, columns)
    kinds = ", ".join((*tar.SUFFIXES, *parquet.SUFFIXES))
    raise SourceError(f"{path} is of an unknown kind; give a folder of images, or a file ending in {kinds}")
