"""Folders that hold no images but tars or Parquet files, which are read in their place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from lookalike.errors import SourceError
from lookalike.messages import number_of
from lookalike.sources import parquet, tar
from lookalike.sources.folder_walk import begins_as_image, has_image_extension, walk
from lookalike.sources.ignore_rules import IgnoreRules
from lookalike.sources.item import display_name, read_error

P = TypeVar("P", bound=PurePath)


def shards_below(root: Path, rules: IgnoreRules) -> list[Path]:
    """Return the sorted tars or Parquet files below a folder without images; nothing if it holds an image.

    A Parquet file beside a tar of the same name describes that tar, as img2dataset writes it, and is left out.

    Raises:
        SourceError: the folder holds tars and other Parquet files, or tars or Parquet files and a folder that can't be
            listed: one can't tell which of the files before are gone.
    """
    if not rules.levels and _has_image(root):
        return []
    tars: list[Path] = []
    tables: list[Path] = []
    unlisted: list[SourceError] = []
    for listing in walk(root, rules, Counter()):
        if listing.error:
            unlisted.append(read_error(listing.folder, listing.error))
        if any(map(has_image_extension, listing.candidates)):
            return []
        if any(begins_as_image(listing.folder / name) for name in listing.candidates):
            return []
        tars += [listing.folder / name for name in listing.others if name.lower().endswith(tar.SUFFIXES)]
        tables += [listing.folder / name for name in listing.others if name.lower().endswith(parquet.SUFFIXES)]
    if unlisted and (tars or tables):
        raise unlisted[0]
    return of_one_kind(tars, tables, display_name(str(root)))


def of_one_kind(tars: Sequence[P], tables: Sequence[P], folder: str) -> list[P]:
    """Return the sorted tars, or the sorted Parquet files if there are no tars.

    Args:
        tars: below the folder.
        tables: Parquet files below it; those that describe a tar are left out.
        folder: its name, for the message.

    Raises:
        SourceError: there are tars and other Parquet files.
    """
    described = {path.with_name(tar.tar_stem(path.name)) for path in tars}
    others = [path for path in tables if path.with_suffix("") not in described]
    if tars and others:
        raise SourceError(
            f"{folder} holds {number_of(len(tars), 'tar file')} and {number_of(len(others), 'Parquet file')}: name "
            f"those that hold the images, as '{folder}/**/*.tar' or '{folder}/**/*.parquet'"
        )
    return sorted(tars or others)


def _has_image(folder: Path) -> bool:
    """Return whether a folder itself holds a file with an image's extension; a large folder is not read to its end."""
    with os.scandir(folder) as entries:
        return any(has_image_extension(entry.name) and not entry.is_dir() for entry in entries)
