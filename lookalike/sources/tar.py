"""Source of the images of a tar: a webdataset, or any other tar.

    000/cat.jpg   the image           000/cat.txt   captions, one a line           000/cat.json   metadata columns

Neighbouring members with the same name up to the first dot are a sample. The id is `<tar stem>/<key>`; if a sample has
several images, each id ends in its extension. In a tar that is no webdataset, the dots of a name may be part of it, as
in "Screenshot at 10.15.12.png": `_is_sample` tells the two apart, and the id is then the whole name.

Of an uncompressed tar only the headers are read first, and an image's bytes when it is decoded; a compressed one is
read as a stream. The readable part of a truncated tar is indexed, and the damage is reported as a rejected item.
"""

from __future__ import annotations

import io
import itertools
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from lookalike.errors import ImageTooLarge, ImageUndecodable, LookalikeError, SourceError
from lookalike.images import is_image_start
from lookalike.sources.columns import captions_from_file, merged_columns
from lookalike.sources.folder_walk import extension_of, has_image_extension, is_candidate
from lookalike.sources.item import (
    HeldBytes,
    Item,
    Source,
    check_size,
    display_name,
    fingerprint,
    read_error,
    unreadable_file,
    unreadable_item,
)
from lookalike.sources.place import SourcePlace
from lookalike.sources.scan_report import ScanReport
from lookalike.sources.sidecars import IgnoredFiles, caption_keys, parse_json, pop_captions
from lookalike.sources.source_file import SourceFile

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""File name suffixes of tars."""

_MAX_NEIGHBOUR_BYTES = 1 << 28
"""Members of a compressed tar are held in memory until the next key begins: a quarter of a gigabyte."""
_WORD = re.compile(r"[^\W\d][\w-]*$")
_SAMPLED_MEMBERS = 200
_START_BYTES = 64
_READ_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of the tar.

    Attributes:
        name: with its folders.
        key: the name up to the first dot of its base.
        stem: the name up to the last dot of its base.
        position: first byte in the tar.
        held: bytes of it that are in memory.
        is_image: whether it is one by its extension, or without a usual extension by its first bytes.
        load: reads it.
    """

    name: str
    key: str
    stem: str
    position: int
    held: int
    is_image: bool
    load: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class _Sidecar:
    """The captions and the columns beside an image, and the names of their files."""

    captions: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


class TarSource(Source):
    """The samples of one tar.

    Args:
        file: the tar, compressed or not.
        label: value of the column `source`.
        prefix: start of every id, `""` or `NAME/`.
        caption: key of the caption in the JSON sidecar, by default `caption`. A .txt file has precedence.
    """

    def __init__(self, file: SourceFile, label: str, prefix: str = "", caption: str | None = None) -> None:
        self.label = label
        self._file = file
        self._stem = prefix + tar_stem(file.name)
        self._caption_keys = caption_keys(caption)
        self._ignored = IgnoredFiles()
        self._report = ScanReport()

    @property
    @override
    def place(self) -> SourcePlace:
        return SourcePlace("tar")

    @property
    @override
    def report(self) -> ScanReport:
        return self._report

    @override
    def estimated_count(self) -> int | None:
        # Estimated from the spacing of the first members; None for a compressed tar.
        try:
            with self._file.open() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
                first = list(itertools.islice(archive, _SAMPLED_MEMBERS))
                images = sum(has_image_extension(_base(member.name)) for member in first)
                if len(first) < _SAMPLED_MEMBERS:
                    return images
                return round(images * stream.seek(0, io.SEEK_END) / archive.offset)
        except _READ_ERRORS:
            return None

    def __iter__(self) -> Iterator[Item]:
        errors: list[Item] = []
        self._ignored, self._report = IgnoredFiles(), ScanReport()
        try:
            parts = self._file.stamp()
            for members in _neighbours(self._members(errors)):
                yield from self._items(members, parts)
        except OSError as error:
            missing = unreadable_item(self._stem, self.label, read_error(str(self._file), error))
            errors.append(self._unread(error) or missing)
        yield from errors

    def _unread(self, error: BaseException) -> Item | None:
        """Return the item of a tar that can't be reached now, None if the error means that it is damaged."""
        item = unreadable_file(self._stem, self.label, str(self._file), error, f"{self._stem}/")
        if item is not None:
            self._report.unread.append(str(self._file))
        return item

    def _members(self, errors: list[Item]) -> Iterator[_Member]:
        read = 0
        try:
            with self._file.open() as stream, tarfile.open(fileobj=stream, mode="r:*") as archive:
                compressed = archive.fileobj is not stream
                while (entry := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # would keep every header; no stub
                    read += 1
                    if entry.isreg() and not Path(entry.name).name.startswith("."):
                        yield self._member(archive, entry, compressed)
                if not compressed:
                    self._check_end(archive.offset)
        except _READ_ERRORS as error:
            what = f"{display_name(self._file.name)} is truncated or corrupt after {read:,} members"
            damage = SourceError(f"{what}: {' '.join(str(error).split())}; the members before are kept")
            errors.append(self._unread(error) or unreadable_item(self._stem, self.label, damage))

    def _check_end(self, offset: int) -> None:
        """Raise ReadError if the archive ends at a damaged header, which `tarfile` takes for its end."""
        block = self._file.read(offset, tarfile.BLOCKSIZE)
        if block and block != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no valid header where the next member should begin")

    def _member(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, compressed: bool) -> _Member:
        name = display_name(entry.name).removeprefix("./")
        key = _key(name)
        if compressed:
            load = self._read_now(archive, entry)
        else:
            load = partial(_read_later, self._file, entry.offset_data, entry.size)
        image = has_image_extension(_base(name))
        if not image and is_candidate(_base(name)):
            start = min(entry.size, _START_BYTES)
            image = _begins_as_image(load if compressed else partial(self._file.read, entry.offset_data, start))
        return _Member(name, key, _stem(name), entry.offset_data, entry.size if compressed else 0, image, load)

    def _read_now(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Callable[[], bytes]:
        try:
            check_size(entry.size)
        except ImageTooLarge as error:
            return partial(_fail, error)
        stream = archive.extractfile(entry)
        data = stream.read() if stream else b""
        return HeldBytes(data)

    def _items(self, members: list[_Member], parts: tuple[int | str, ...]) -> Iterator[Item]:
        images = [member for member in members if member.is_image]
        sample = _is_sample(members)
        sidecars = self._sidecars(members) if images else {}
        used: set[str] = set()
        several = sum(sample or member.stem == member.key for member in images) > 1
        for member in images:
            by_key = (sample or member.stem == member.key) and not several
            stems = dict.fromkeys((member.name, member.stem, member.key if sample else member.stem))
            beside = [sidecars[stem] for stem in stems if stem in sidecars]
            used.update(*(sidecar.names for sidecar in beside))
            yield Item(
                f"{self._stem}/{member.key if by_key else member.name}",
                self.label,
                fingerprint(*parts, member.position),
                member.load,
                {"path": member.name, **self._columns(beside)},
                fallback_id=f"{self._stem}/{member.name}",
            )
        others = (member.name for member in members if not member.is_image and member.name not in used)
        self._report.skipped.update(map(extension_of, others))

    def _columns(self, beside: Sequence[_Sidecar]) -> dict[str, Any]:
        """Return the columns of an image: of the files that are named like it, then of those that its sample shares."""
        extra = {name: value for sidecar in reversed(beside) for name, value in sidecar.columns.items()}
        own = next((sidecar.captions for sidecar in beside if sidecar.captions), {})
        return merged_columns(own or pop_captions(extra, self._caption_keys), extra)

    def _sidecars(self, members: list[_Member]) -> dict[str, _Sidecar]:
        """Return stem -> what the .txt and .json files with that stem hold."""
        found: dict[str, _Sidecar] = {}
        for member in members:
            extension = member.name.rpartition(".")[2].lower()
            if extension not in ("txt", "json"):
                continue
            sidecar = found.setdefault(member.stem, _Sidecar())
            try:
                if extension == "txt":
                    sidecar.captions.update(captions_from_file(member.load()))
                else:
                    sidecar.columns.update(parse_json(member.load(), member.name))
                sidecar.names.append(member.name)
            except LookalikeError as error:
                self._ignored.add(error)
        return found


def _neighbours(members: Iterable[_Member]) -> Iterator[list[_Member]]:
    """Yield neighbouring members with the same key; at most `_MAX_NEIGHBOUR_BYTES` of them are in memory."""
    for _, group in itertools.groupby(members, key=lambda member: member.key):
        together: list[_Member] = []
        held = 0
        for member in group:
            if together and held + member.held > _MAX_NEIGHBOUR_BYTES:
                yield together
                together, held = [], 0
            together.append(member)
            held += member.held
        yield together


def _is_sample(members: Sequence[_Member]) -> bool:
    """Return whether neighbours with the same key are a sample of a webdataset, and not files with dots in their names.

    They are if they share a file such as `cat.json` beside `cat.0.jpg` and `cat.1.jpg`. Else they are if all parts
    between dots are words, as in `cat.left.jpg` and `cat.right.jpg`, and not numbers, as in `v1.2.jpg` and `v1.3.jpg`.
    """
    if len({member.stem for member in members}) == 1:
        return False
    shared = [member for member in members if member.stem == member.key]
    if shared and not any(member.is_image for member in shared):
        return True
    return all(_WORD.match(part) for member in members for part in member.stem[len(member.key) :].split(".")[1:])


def tar_stem(name: str) -> str:
    """Return the file name without its suffix.

    >>> tar_stem("part-01.tar.gz")
    'part-01'
    """
    lower = name.lower()
    suffix = max((e for e in SUFFIXES if lower.endswith(e)), key=len, default="")
    return display_name(name[: len(name) - len(suffix)])


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _key(name: str) -> str:
    """Return the name up to the first dot of its base, the key of webdataset.

    >>> _key("a.b/cat.left.jpg")
    'a.b/cat'
    """
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _stem(name: str) -> str:
    """Return the name up to the last dot of its base.

    >>> _stem("a.b/cat.left.jpg"), _stem("a.b/cat")
    ('a.b/cat.left', 'a.b/cat')
    """
    folder, slash, base = name.rpartition("/")
    return folder + slash + (base.rpartition(".")[0] or base)


def _begins_as_image(read: Callable[[], bytes]) -> bool:
    try:
        return is_image_start(read()[:_START_BYTES])
    except LookalikeError:  # too large, or truncated
        return False


def _read_later(file: SourceFile, offset: int, size: int) -> bytes:
    data = file.read(offset, size)
    if len(data) < size:
        raise ImageUndecodable(f"the tar {display_name(file.name)} ends within this image")
    return data


def _fail(error: ImageTooLarge) -> NoReturn:
    raise error
