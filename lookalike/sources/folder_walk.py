"""The walk through a folder: which files may be images, and what is skipped, excluded or can't be listed.

Hidden files and folders are not looked at. Links to folders are followed, but no folder is entered twice: a folder of
the tree is read at its own path, another one at the first link to it in the order of the walk.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lookalike.images import EXTENSIONS, is_image_start
from lookalike.sources.ignore_rules import IGNORE_FILE, NO_MEDIA_FILE, IgnoreRules
from lookalike.sources.item import display_name

COLLECTION_NAMES = frozenset({"CURRENT", "versions"})
"""Names in the folder of a collection of Lookalike, which is not read as a folder of images."""

_USUAL_EXTENSION = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,5}|\.parquet", re.IGNORECASE)
_EXTENSION = re.compile(r"\.(?=[0-9]*[a-z])[a-z0-9]{1,16}")
_START_BYTES = 64
_LONG_EXTENSIONS = (".tar.gz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one folder.

    Attributes:
        folder: its path.
        candidates: sorted names of files that may be images: an image's extension, or no usual one.
        others: sorted names of all other files.
        names: all names that are not excluded, hidden ones included.
        error: why the folder can't be listed; None if it can.
    """

    folder: Path
    candidates: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    names: frozenset[str] = frozenset()
    error: OSError | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    """A folder to enter: its path, its name below the root (`""` or with a slash at its end), and its rules."""

    path: Path
    relative: str
    rules: IgnoreRules
    linked: bool = False


def walk(root: Path, rules: IgnoreRules, excluded: Counter[str]) -> Iterator[Listing]:
    """Yield the folders in a fixed order, each before its sub-folders.

    Args:
        root: the folder to begin with, which is never excluded itself.
        rules: of `--exclude`.
        excluded: counts of what is excluded by pattern, which are added to.

    Raises:
        SourceError: an ignore file can't be read, or holds an invalid pattern.
    """
    real_root = os.path.realpath(root)
    visited = {_identity(real_root)}
    pending = [_Pending(root, "", rules)]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current.path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield Listing(current.path, error=error)
            continue
        names = {entry.name for entry in entries}
        if current.relative and (reason := _left_out(current, names)):
            excluded[reason] += 1
            continue
        rules = current.rules
        if IGNORE_FILE in names:
            rules = rules.below(current.relative, current.path / IGNORE_FILE)
        listing, folders = _classified(current, rules, entries, excluded)
        yield listing
        entered = [
            _Pending(Path(entry.path), f"{current.relative}{entry.name}/", rules, current.linked or entry.is_symlink())
            for entry in folders
            if _should_enter(entry, current.linked, real_root, visited)
        ]
        pending += reversed(entered)  # the stack is popped from its end: the first folder by name is pushed last


def _left_out(current: _Pending, names: set[str]) -> str | None:
    """Return why a folder's content excludes it."""
    if names >= COLLECTION_NAMES:
        return "collection"
    if NO_MEDIA_FILE in names and not current.rules.includes_again(current.relative):
        return NO_MEDIA_FILE
    return None


def _classified(
    current: _Pending, rules: IgnoreRules, entries: list[os.DirEntry[str]], excluded: Counter[str]
) -> tuple[Listing, list[os.DirEntry[str]]]:
    listing_names: list[str] = []
    candidates: list[str] = []
    others: list[str] = []
    folders: list[os.DirEntry[str]] = []
    for entry in entries:
        name = entry.name
        if name.startswith("."):
            listing_names.append(name)
            continue
        folder = _is_folder(entry)
        path = f"{current.relative}{name}/" if folder else f"{current.relative}{name}"
        if (folder or rules.levels) and (pattern := rules.excluded_by(path)):  # the defaults name folders only
            excluded[pattern] += 1
            continue
        listing_names.append(name)
        if folder:
            folders.append(entry)
        else:
            (candidates if is_candidate(name) else others).append(name)
    return Listing(current.path, candidates, others, frozenset(listing_names)), folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link whose target can't be reached: it is reported where it can't be listed
        return not has_image_extension(entry.name)


def _should_enter(
    entry: os.DirEntry[str], below_link: bool, real_root: str, visited: set[tuple[int, int] | None]
) -> bool:
    """Return whether a folder was not entered yet; only a link can lead to a folder again."""
    linked = entry.is_symlink()
    if not (linked or below_link):
        return True
    target = os.path.realpath(entry.path)
    if Path(target).is_relative_to(real_root):
        return False  # read at its own path
    identity = _identity(target)
    if identity is None:
        return True
    if identity in visited:
        return False
    visited.add(identity)
    return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def has_image_extension(name: str) -> bool:
    """Return whether a file name has an image's extension, in any case, and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def is_candidate(name: str) -> bool:
    """Return whether a file may be an image by its name: it has an image's extension, or no usual extension.

    A usual extension has one to five letters and digits, and not only digits.

    >>> [is_candidate(name) for name in ("a.JPG", "photo", "photo.jpg_large", "a.webp@120w", "2024.01.05", "a.mov")]
    [True, True, True, True, True, False]
    """
    return has_image_extension(name) or not _USUAL_EXTENSION.fullmatch(os.path.splitext(name)[1])


def extension_of(name: str) -> str:
    """Return the extension by which a skipped file is counted, lower case; `""` for none of letters and digits.

    >>> [extension_of(name) for name in ("a.MOV", "x.tar.gz", "a.torrent", "README", "a.webp@120w")]
    ['.mov', '.tar.gz', '.torrent', '', '']
    """
    lower = display_name(name).lower()
    extension = next((e for e in _LONG_EXTENSIONS if lower.endswith(e)), os.path.splitext(lower)[1])
    return extension if extension in _LONG_EXTENSIONS or _EXTENSION.fullmatch(extension) else ""


def begins_as_image(path: Path) -> bool:
    """Return whether a file's first bytes are those of an image; True if it can't be opened, which is reported then."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would block
            return False
        with path.open("rb") as stream:
            return is_image_start(stream.read(_START_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
