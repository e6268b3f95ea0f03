"""The folders whose collections are served, and the names of collections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lookalike.errors import ConfigInvalid


def collection_folders(first: Path, more: Sequence[Path]) -> list[Path]:
    """Return the folders to serve: a folder that is no collection stands for the collections in it, sorted by name.

    Args:
        first: the default collection, whether or not it exists.
        more: further collections, or folders of collections.
    """
    from lookalike.collection import CURRENT

    folders = [first]
    for folder in more:
        if folder.is_dir() and not any(folder.iterdir()):
            continue  # an empty folder of collections
        inside = [] if (folder / CURRENT).exists() else sorted(path.parent for path in folder.glob(f"*/{CURRENT}"))
        folders += [path for path in inside or [folder] if path.resolve() != first.resolve()]
    return folders


def discover_collections(first: Path, more: Sequence[Path]) -> list[Path]:
    """Return those of `collection_folders` that hold a collection now."""
    from lookalike.collection import CURRENT

    return [folder for folder in collection_folders(first, more) if (folder / CURRENT).exists()]


def folder_name(root: Path) -> str:
    """Return the name of a collection: its folder's, or the link's own if the folder is a symbolic link.

    Raises:
        ConfigInvalid: the name is not UTF-8, so no URL can contain it.
    """
    name = root.absolute().name
    if name in ("", ".."):
        name = root.resolve().name
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigInvalid(f"the name of the folder {str(root)!r} is not UTF-8; rename it") from error
    return name
