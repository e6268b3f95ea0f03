"""The sources that a URL `s3://BUCKET/KEY` names: a tar, a table or an image, a prefix, or a pattern."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from lookalike.errors import SourceError, SourceNotFound
from lookalike.images import is_image_start
from lookalike.object_storage import Location, StoredObject, find_object, has_objects, read_objects
from lookalike.sources import parquet, tar
from lookalike.sources.bucket import BucketSource, Entry
from lookalike.sources.bucket_pattern import KeyPattern
from lookalike.sources.folder_walk import has_image_extension, is_candidate
from lookalike.sources.ignore_rules import IgnoreRules
from lookalike.sources.item import ColumnNames, Source, display_name
from lookalike.sources.shard_folder import of_one_kind
from lookalike.sources.source_file import BucketFile

_START_BYTES = 64


def open_bucket_sources(url: str, name: str, columns: ColumnNames, rules: IgnoreRules) -> list[Source]:
    """Open the sources that a URL names.

    Args:
        url: of an object, of a prefix, or with wildcards.
        name: of the source, put before its ids; `""` for none.
        columns: names of a table's columns.
        rules: what is excluded below a prefix.

    Raises:
        ExtraMissing: s3fs is not installed.
        SourceNotFound: there is no such bucket, object or prefix, or nothing matches the pattern.
        SourceError: a permission is missing, or an object is of an unknown kind.
        BucketUnavailable: the endpoint can't be reached, or there are no valid credentials.
    """
    place = Location.parse(url)
    opener = _Opener(name, columns, rules)
    found = None if place.key.endswith("/") else find_object(place)
    if found and found.size:  # an empty object may be the marker of a folder
        return opener.one(found)
    folder = Location(place.bucket, f"{place.key.rstrip('/')}/" if place.key else "")
    if has_objects(folder):
        return opener.below(folder)
    if found:
        return opener.one(found)
    if glob.has_magic(place.key):
        return opener.matching(place)
    raise SourceNotFound(f"{url!r}: no object has this key, and none lies below it; check the bucket and the key")


class _Opener:
    def __init__(self, name: str, columns: ColumnNames, rules: IgnoreRules) -> None:
        self._name, self._columns, self._rules = name, columns, rules
        self._prefix = f"{name}/" if name else ""

    def one(self, found: StoredObject) -> list[Source]:
        """Return the source of one object."""
        place = found.location
        if is_shard(place.name):
            return [self._shard(found)]
        if not (has_image_extension(place.name) or _begins_as_image(found)):
            kinds = ", ".join((*tar.SUFFIXES, *parquet.SUFFIXES))
            raise SourceError(f"{place} is of an unknown kind; name a prefix of images, or an object ending in {kinds}")
        above = Location(place.bucket, place.key.removesuffix(place.name))
        pattern = KeyPattern("", (glob.escape(place.name),))
        return [BucketSource(above, self._label(place), self._prefix, pattern=pattern, caption=self._columns.caption)]

    def below(self, folder: Location) -> list[Source]:
        """Return the sources of a prefix: its images, or tars or tables if it holds no image."""
        images = self._images(folder, self._label(folder))
        shards = _shards(images.entries(), str(folder).rstrip("/"))
        keys = frozenset(entry.stored.location.key for entry in shards)
        return [
            self._images(folder, self._label(folder), read_elsewhere=keys),
            *(self._shard(entry.stored, PurePosixPath(entry.relative).parts[:-1]) for entry in shards),
        ]

    def matching(self, place: Location) -> list[Source]:
        """Return the sources of a pattern: its tars and tables, and its images."""
        pattern = KeyPattern.parse(place.key)
        folder = Location(place.bucket, pattern.folder)
        images = self._images(folder, self._label(folder), pattern)
        shards: list[Source] = []
        has_images = False
        for entry in images.matching_entries():
            if not is_shard(entry.name):
                has_images = True
                if has_image_extension(pattern.parts[-1]):  # no tar or table can match
                    break
            else:
                shards.append(self._shard(entry.stored))
        if not (shards or has_images):
            raise SourceNotFound(f"no object matches the pattern {str(place)!r}")
        return [images, *shards] if has_images else shards

    def _images(
        self,
        folder: Location,
        label: str,
        pattern: KeyPattern | None = None,
        read_elsewhere: frozenset[str] = frozenset(),
    ) -> BucketSource:
        caption = self._columns.caption
        return BucketSource(folder, label, self._prefix, self._rules, pattern, read_elsewhere, caption)

    def _shard(self, found: StoredObject, folders: Sequence[str] = ()) -> Source:
        file, label = BucketFile(found), self._label(found.location)
        if found.location.name.lower().endswith(tar.SUFFIXES):
            prefix = self._prefix + "".join(f"{display_name(part)}/" for part in folders)
            return tar.TarSource(file, label, prefix, self._columns.caption)
        return parquet.ParquetSource(file, label, self._prefix, self._columns)

    def _label(self, place: Location) -> str:
        return self._name or display_name(place.name)


def is_shard(name: str) -> bool:
    """Return whether an object is a tar or a table by its name."""
    return name.lower().endswith((*tar.SUFFIXES, *parquet.SUFFIXES))


def _shards(entries: Iterable[Entry], folder: str) -> list[Entry]:
    """Return the tars or tables among the objects below a prefix; nothing if one of the objects is an image."""
    found: dict[PurePosixPath, Entry] = {}
    for entry in entries:
        if is_shard(entry.name):
            found[PurePosixPath(entry.relative)] = entry
        elif has_image_extension(entry.name) or _begins_as_image(entry.stored):
            return []
    tars = [path for path in found if path.name.lower().endswith(tar.SUFFIXES)]
    tables = [path for path in found if path.name.lower().endswith(parquet.SUFFIXES)]
    return [found[path] for path in of_one_kind(tars, tables, folder)]


def _begins_as_image(found: StoredObject) -> bool:
    return is_candidate(found.location.name) and is_image_start(read_objects([found], _START_BYTES)[0] or b"")
