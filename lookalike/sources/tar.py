"""Source of the samples of a webdataset tar: neighbouring members with the same name up to the first dot.

    000/cat.jpg   the image           000/cat.txt   captions, one a line           000/cat.json   metadata columns

The id is `<tar stem>/<key>`; if a sample has several images, each id ends in its extension. Of an uncompressed tar only
the headers are read first, and an image's bytes when it is decoded; a compressed one is read as a stream. The readable
part of a truncated tar is indexed, and the damage is reported as a rejected item.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from lookalike.errors import ImageTooLarge, ImageUndecodable, SourceError
from lookalike.images import EXTENSIONS
from lookalike.sources.columns import MAX_CAPTION_BYTES, captions_from_cell, captions_from_file, merged_columns
from lookalike.sources.item import (
    Item,
    Source,
    check_size,
    display_name,
    fingerprint,
    read_error,
    read_range,
    size_and_mtime,
    unreadable_item,
)

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""File name suffixes of tars."""

_MAX_JSON_BYTES = 1 << 24
_SAMPLED_MEMBERS = 200
_READ_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of the tar: sample key, extension after the key's dot, name, byte position, and how to load its bytes."""

    key: str
    extension: str
    name: str
    position: int
    load: Callable[[], bytes]


class TarSource(Source):
    """The samples of one tar.

    Args:
        path: the tar, compressed or not.
        label: value of the column `source`.
        prefix: start of every id, `""` or `NAME/`.
        caption: key of the caption in the JSON sidecar, by default `caption`. A .txt file has precedence.
    """

    def __init__(self, path: Path, label: str, prefix: str = "", caption: str | None = None) -> None:
        self.label = label
        self._path = path
        self._stem = prefix + tar_stem(path.name)
        self._caption = caption or "caption"

    @override
    def estimated_count(self) -> int | None:
        # Estimated from the spacing of the first members; None for a compressed tar.
        try:
            with tarfile.open(self._path, "r:") as archive:
                first = list(itertools.islice(archive, _SAMPLED_MEMBERS))
                images = sum(_is_image(member.name) for member in first)
                if len(first) < _SAMPLED_MEMBERS:
                    return images
                return round(images * self._path.stat().st_size / archive.offset)
        except _READ_ERRORS:
            return None

    def __iter__(self) -> Iterator[Item]:
        errors: list[SourceError] = []
        try:
            parts = size_and_mtime(self._path.stat())
            for _, members in itertools.groupby(self._members(errors), key=lambda member: member.key):
                yield from self._sample(list(members), parts)
        except OSError as error:
            errors.append(read_error(self._path, error))
        for damage in errors:
            yield unreadable_item(self._stem, self.label, damage)

    def _members(self, errors: list[SourceError]) -> Iterator[_Member]:
        read = 0
        try:
            with tarfile.open(self._path, "r:*") as archive:
                compressed = not isinstance(archive.fileobj, io.BufferedReader)
                while (entry := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # would keep every header; no stub
                    read += 1
                    if entry.isreg() and not Path(entry.name).name.startswith("."):
                        yield self._member(archive, entry, compressed)
                if not compressed:
                    self._check_end(archive.offset)
        except _READ_ERRORS as error:
            what = f"{display_name(self._path.name)} is truncated or corrupt after {read:,} members"
            errors.append(SourceError(f"{what}: {' '.join(str(error).split())}; the members before are kept"))

    def _check_end(self, offset: int) -> None:
        """Raise ReadError if the archive ends at a damaged header, which `tarfile` takes for its end."""
        block = read_range(self._path, offset, tarfile.BLOCKSIZE)
        if block and block != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no valid header where the next member should begin")

    def _member(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, compressed: bool) -> _Member:
        name = display_name(entry.name)
        key, extension = _split(name)
        if compressed:
            load = self._read_now(archive, entry)
        else:
            load = partial(_read_later, self._path, entry.offset_data, entry.size)
        return _Member(key, extension, name, entry.offset_data, load)

    def _read_now(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Callable[[], bytes]:
        try:
            check_size(entry.size)
        except ImageTooLarge as error:
            return partial(_fail, error)
        stream = archive.extractfile(entry)
        data = stream.read() if stream else b""
        return lambda: data

    def _sample(self, members: list[_Member], parts: tuple[int, ...]) -> Iterator[Item]:
        images = [member for member in members if _is_image(member.name)]
        if not images:
            return
        columns = self._columns(members)
        for member in images:
            item_id = f"{self._stem}/{member.key}" + (f".{member.extension}" if len(images) > 1 else "")
            changes = fingerprint(*parts, member.position)
            yield Item(item_id, self.label, changes, member.load, {"path": member.name, **columns})

    def _columns(self, members: list[_Member]) -> dict[str, Any]:
        own: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for member in members:
            if member.extension.lower() == "txt":
                own = captions_from_file(_read_sidecar(member, MAX_CAPTION_BYTES))
            elif member.extension.lower() == "json":
                extra = _json_columns(member)
        for name in (self._caption, "captions"):
            if not own and name in extra:
                own = captions_from_cell(extra.pop(name))
        return merged_columns(own, extra)


def tar_stem(name: str) -> str:
    """Return the file name without its suffix.

    >>> tar_stem("part-01.tar.gz")
    'part-01'
    """
    lower = name.lower()
    suffix = max((e for e in SUFFIXES if lower.endswith(e)), key=len, default="")
    return display_name(name[: len(name) - len(suffix)])


def _split(name: str) -> tuple[str, str]:
    """Split a name into key and extension at the first dot of the base name, as webdataset does.

    >>> _split("a.b/cat.left.jpg")
    ('a.b/cat', 'left.jpg')
    """
    name = name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension


def _is_image(name: str) -> bool:
    base = name.rpartition("/")[2]
    return not base.startswith(".") and "." + base.rpartition(".")[2].lower() in EXTENSIONS


def _read_later(path: Path, offset: int, size: int) -> bytes:
    data = read_range(path, offset, size)
    if len(data) < size:
        raise ImageUndecodable(f"the tar {display_name(path.name)} ends within this image")
    return data


def _fail(error: ImageTooLarge) -> NoReturn:
    raise error


def _read_sidecar(member: _Member, limit: int) -> bytes:
    try:
        return member.load()[:limit]
    except (ImageTooLarge, ImageUndecodable, SourceError) as error:
        _log.warning("sidecar %s is ignored: %s", member.name, error)
        return b""


def _json_columns(member: _Member) -> dict[str, Any]:
    try:
        columns = json.loads(_read_sidecar(member, _MAX_JSON_BYTES) or b"{}")
    except (ValueError, RecursionError) as error:
        _log.warning("sidecar %s is ignored: not JSON: %s", member.name, error)
        return {}
    return columns if isinstance(columns, dict) else {"json": columns}
