"""Source of the images in a bucket: all objects below a prefix, one object, or those that a pattern matches.

The id is the key below the prefix. Objects come in the order of the listing, by the UTF-8 bytes of their keys, and
memory holds a page of it. Captions and JSON beside an image are read if their keys differ from the image's only after
the first dot of the name: `a.jpg`, `a.txt`, `a.jpg.json`. Tables such as `metadata.csv`, `.lookalikeignore` and
`.nomedia` are not read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from typing_extensions import override

from lookalike.errors import SourceError
from lookalike.images import is_image_start
from lookalike.object_storage import KEYS_PER_PAGE, Location, StoredObject, list_objects, read_object, read_objects
from lookalike.sources.bucket_pattern import KeyPattern
from lookalike.sources.columns import MAX_CAPTION_BYTES
from lookalike.sources.folder_walk import extension_of, has_image_extension, is_candidate
from lookalike.sources.ignore_rules import IgnoreRules
from lookalike.sources.item import Item, Source, check_size, display_name, fingerprint
from lookalike.sources.place import SourcePlace
from lookalike.sources.scan_report import ScanReport
from lookalike.sources.sidecars import MAX_JSON_BYTES, FolderSidecars, Sidecars

MAX_COUNTED = 10 * KEYS_PER_PAGE
"""A bucket with more keys is not counted before it is read."""
_OBJECTS_AT_ONCE = 128
_MAX_GROUP = 1_024
"""Objects of a group that are looked at together, for keys such as `frame.000001.jpg`."""
_START_BYTES = 64
_SIDECARS = (".txt", ".json")


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of the source.

    Attributes:
        stored: the object.
        relative: its key below the source's folder.
    """

    stored: StoredObject
    relative: str

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.relative.rpartition("/")[2]

    @property
    def group(self) -> str:
        """The key up to the first dot of its name; objects of one group are neighbours in a listing."""
        folder, slash, name = self.relative.rpartition("/")
        return folder + slash + name.partition(".")[0]


class BucketSource(Source):
    """The images below a folder of a bucket.

    Args:
        folder: the place; its key is empty or ends in a slash.
        label: value of the column `source`.
        prefix: start of every id, `""` or `NAME/`.
        rules: what is excluded.
        pattern: which keys are read, all if None.
        read_elsewhere: keys that other sources read, so that they are not skipped.
        caption: JSON key of the caption, by default found by its name. A text file has precedence.
    """

    def __init__(
        self,
        folder: Location,
        label: str,
        prefix: str = "",
        rules: IgnoreRules | None = None,
        pattern: KeyPattern | None = None,
        read_elsewhere: Set[str] = frozenset(),
        caption: str | None = None,
    ) -> None:
        self.label = label
        self._folder = folder
        self._prefix = prefix
        self._rules = rules or IgnoreRules()
        self._pattern = pattern
        self._read_elsewhere = read_elsewhere
        self._caption = caption
        self._report = ScanReport()

    @property
    @override
    def place(self) -> SourcePlace:
        return SourcePlace("bucket")

    @property
    @override
    def count_is_maximum(self) -> bool:
        return True

    @property
    @override
    def report(self) -> ScanReport:
        return self._report

    @override
    def estimated_count(self) -> int | None:
        # A listing of millions takes minutes. Objects without a usual extension are counted unread.
        first = list(itertools.islice(self.entries(), MAX_COUNTED))
        return None if len(first) == MAX_COUNTED else sum(self._may_be_image(entry) for entry in first)

    def entries(self) -> Iterator[Entry]:
        """Yield the objects that are not hidden or excluded; a new report is begun.

        Raises:
            SourceError: the bucket can't be listed, in the beginning or later.
        """
        self._report = report = ScanReport()
        exclusion = _Exclusion(self._rules, report)
        start = self._folder.key + (self._pattern.fixed if self._pattern else "")
        for stored in list_objects(Location(self._folder.bucket, start)):
            entry = Entry(stored, stored.location.key.removeprefix(self._folder.key))
            if not entry.name or any(part.startswith(".") for part in entry.relative.split("/")):
                continue  # the marker of a folder, or hidden
            if not exclusion.excludes(entry.relative):
                yield entry

    def matching_entries(self) -> Iterator[Entry]:
        """Yield those of the objects that the pattern matches."""
        return filter(self._matches, self.entries())

    def __iter__(self) -> Iterator[Item]:
        sidecars = Sidecars(self._caption)
        for groups in _several(self.entries()):
            contents = _Contents(self._worth_reading(groups))
            for group in groups:
                yield from self._items(group, sidecars, contents)

    def _matches(self, entry: Entry) -> bool:
        return self._pattern is None or self._pattern.matches(entry.relative)

    def _may_be_image(self, entry: Entry) -> bool:
        return is_candidate(entry.name) and self._matches(entry) and not self._is_elsewhere(entry)

    def _is_elsewhere(self, entry: Entry) -> bool:
        return entry.stored.location.key in self._read_elsewhere

    def _worth_reading(self, groups: Sequence[Sequence[Entry]]) -> Iterator[tuple[Entry, int]]:
        """Yield the objects to read before the images are known, and how many bytes of them."""
        for group in groups:
            candidates = [entry for entry in group if self._may_be_image(entry)]
            for entry in group if candidates else ():
                if entry.name.lower().endswith(_SIDECARS):
                    yield entry, MAX_CAPTION_BYTES if entry.name.lower().endswith(".txt") else MAX_JSON_BYTES
            for entry in candidates:
                if not has_image_extension(entry.name):
                    yield entry, _START_BYTES

    def _items(self, group: Sequence[Entry], sidecars: Sidecars, contents: _Contents) -> Iterator[Item]:
        folder = PurePosixPath(group[0].relative).parent
        named = {entry.name: entry for entry in group}
        beside = FolderSidecars(sidecars, folder, named, (), set(), contents.reader(named))
        others = []
        for entry in group:
            if self._may_be_image(entry) and (has_image_extension(entry.name) or contents.begins_as_image(entry)):
                yield self._item(entry, beside.columns(entry.name))
            elif self._matches(entry) and not self._is_elsewhere(entry):
                others.append(entry.name)
        self._report.skipped.update(extension_of(name) for name in others if name not in beside.used)

    def _item(self, entry: Entry, columns: Mapping[str, Any]) -> Item:
        relative = display_name(entry.relative)
        return Item(
            self._prefix + relative,
            self.label,
            fingerprint(entry.stored.size, entry.stored.etag),
            partial(load_object, entry.stored),
            {"path": relative, **columns},
            fallback_id=f"{self.label}/{relative}",
        )


def load_object(stored: StoredObject) -> bytes:
    """Return the bytes of an image.

    Raises:
        ImageTooLarge: more than `MAX_FILE_BYTES`.
        SourceNotFound: the object was removed.
        SourceError: a permission is missing.
        BucketUnavailable: the bucket can't be reached.
    """
    check_size(stored.size)
    return read_object(stored.location)


class _Exclusion:
    """Decides about keys in the order of a listing, so that the keys of a folder are neighbours."""

    def __init__(self, rules: IgnoreRules, report: ScanReport) -> None:
        self._rules, self._report = rules, report
        self._included: list[str] = []
        self._excluded: str | None = None

    def excludes(self, relative: str) -> bool:
        """Return whether a key or a folder above it is excluded, and count what is excluded."""
        if self._excluded is not None and relative.startswith(self._excluded):
            return True
        self._excluded = None
        self._included = [folder for folder in self._included if relative.startswith(folder)]
        for folder in _folders(relative)[len(self._included) :]:
            if pattern := self._rules.excluded_by(folder):
                self._excluded = folder
                self._report.excluded[pattern] += 1
                return True
            self._included.append(folder)
        pattern = self._rules.excluded_by(relative) if self._rules.levels else None  # the defaults name folders only
        if pattern:
            self._report.excluded[pattern] += 1
        return pattern is not None


class _Contents:
    """The content of a few small objects, read at the same time."""

    def __init__(self, wanted: Iterable[tuple[Entry, int]]) -> None:
        self._contents: dict[str, bytes | None] = {}
        for size, entries in itertools.groupby(sorted(wanted, key=lambda pair: pair[1]), key=lambda pair: pair[1]):
            stored = [entry.stored for entry, _ in entries]
            keys = [place.location.key for place in stored]
            self._contents |= zip(keys, read_objects(stored, size), strict=True)

    def begins_as_image(self, entry: Entry) -> bool:
        """Return whether an object's first bytes are an image's; True if it can't be read, which is reported then."""
        start = self._contents.get(entry.stored.location.key)
        return start is None or is_image_start(start)

    def reader(self, named: Mapping[str, Entry]) -> partial[bytes]:
        """Return the function that reads an object of a group by its name."""
        return partial(self._read, named)

    def _read(self, named: Mapping[str, Entry], name: str, limit: int, *, cut: bool) -> bytes:
        stored = named[name].stored
        data = self._contents.get(stored.location.key)
        if data is None:
            raise SourceError(f"{stored.location} can't be read")
        if stored.size > limit and not cut:
            raise SourceError(f"{stored.location} has {stored.size:,} bytes; the limit for such a file is {limit:,}")
        return data[:limit]


def _folders(relative: str) -> list[str]:
    """Return the folders above a key, the highest first.

    >>> _folders("a/b/c.jpg")
    ['a/', 'a/b/']
    """
    return [relative[: i + 1] for i, character in enumerate(relative) if character == "/"]


def _several(entries: Iterable[Entry]) -> Iterator[list[list[Entry]]]:
    """Yield groups, several of them together."""
    together: list[list[Entry]] = []
    for _, group in itertools.groupby(entries, key=lambda entry: entry.group):
        while part := list(itertools.islice(group, _MAX_GROUP)):
            together.append(part)
            if sum(map(len, together)) >= _OBJECTS_AT_ONCE:
                yield together
                together = []
    if together:
        yield together
