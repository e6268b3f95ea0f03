"""Where the shards of encoded images lie until their version is published: the work folder, or a bucket."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from typing_extensions import override

from indexing.arrow_files import read_table, write_table
from indexing.metadata_tables import conform
from indexing.row_stream import ENCODED_SCHEMA
from lookalike.errors import BucketUnavailable, CollectionUnwritable, ConfigInvalid
from lookalike.object_storage import Location, is_object_url, list_objects, read_object, remove_objects, write_object

KEYS = pa.schema(
    [
        ("id_hash", pa.uint64()),
        ("fingerprint", pa.uint64()),
        ("rejected", pa.bool_()),
        ("content_hash", ENCODED_SCHEMA.field("content_hash").type),
    ]
)
"""The small columns of a shard, by which its rows are found."""
_START, _END = "encoded-", ".arrow"
_log = logging.getLogger(__name__)


class ShardStorage(Protocol):
    """Shards by their names, which sort by age."""

    def names(self) -> list[str]:
        """Return the names of the finished shards, oldest first."""
        ...

    def write(self, name: str, table: pa.Table) -> None:
        """Write a shard durably, whole or not at all."""
        ...

    def read(self, name: str) -> pa.Table:
        """Return a shard; columns that it lacks, since an earlier release wrote it, are null."""
        ...

    def keys(self, name: str) -> pa.Table:
        """Return the columns `KEYS` of a shard."""
        ...

    def remove(self) -> None:
        """Remove the shards of a version that was published."""
        ...


class FolderShards(ShardStorage):
    """Shards in the work folder, which is created; they are removed with it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    @override
    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob(f"{_START}*{_END}"))

    @override
    def write(self, name: str, table: pa.Table) -> None:
        write_table(self._folder / name, table)

    @override
    def read(self, name: str) -> pa.Table:
        return conform(read_table(self._folder / name), ENCODED_SCHEMA)

    @override
    def keys(self, name: str) -> pa.Table:
        return _keys(self.read(name))

    @override
    def remove(self) -> None:
        pass


class BucketShards(ShardStorage):
    """Shards in a bucket, each written by one PUT; the columns `KEYS` of those seen are kept in memory."""

    def __init__(self, place: Location) -> None:
        self._place = place
        self._known: dict[str, pa.Table] = {}

    @override
    def names(self) -> list[str]:
        start = self._place.below(_START)
        return [found.location.name for found in list_objects(start) if found.location.name.endswith(_END)]

    @override
    def write(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        write_object(self._place.below(name), sink.getvalue().to_pybytes())
        self._known[name] = _keys(table)

    @override
    def read(self, name: str) -> pa.Table:
        data = read_object(self._place.below(name))
        table = conform(pa.ipc.open_file(pa.BufferReader(data)).read_all(), ENCODED_SCHEMA)
        self._known.setdefault(name, _keys(table))
        return table

    @override
    def keys(self, name: str) -> pa.Table:
        if name not in self._known:
            self.read(name)
        return self._known[name]

    @override
    def remove(self) -> None:
        try:
            remove_objects(self._place.below(name) for name in self.names())
        except (BucketUnavailable, CollectionUnwritable) as error:  # the version is published already
            _log.warning("the shards in %s stay: %s", self._place, error)


def shard_storage(work: Path, url: str | None) -> ShardStorage:
    """Return where to keep the shards of a version.

    Args:
        work: the work folder, whose name tells the encoders apart.
        url: `s3://BUCKET/PATH`; None for the work folder.

    Raises:
        ConfigInvalid: it is another URL.
    """
    if url is None:
        return FolderShards(work)
    if not is_object_url(url):
        raise ConfigInvalid(f"--shards is {url!r}; it must be s3://BUCKET/PATH")
    return BucketShards(Location.parse(url).below(work.name))


def number_of_shard(name: str) -> int:
    """Return the number in a shard's name.

    >>> number_of_shard("encoded-00000012.arrow")
    12
    """
    return int(name.removeprefix(_START).removesuffix(_END))


def shard_name(number: int) -> str:
    """Return the name of a shard by its number."""
    return f"{_START}{number:08d}{_END}"


def _keys(shard: pa.Table) -> pa.Table:
    columns = [shard.column("id_hash"), shard.column("fingerprint"), shard.column("code").is_valid()]
    return pa.table([*columns, shard.column("content_hash")], schema=KEYS)
