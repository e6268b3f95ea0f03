"""The log of writes: a SQLite database in the collection's folder that holds the last write of each item.

A commit is on the disk when it returns: SQLite's write-ahead log is synced at every one (`synchronous=FULL`). The
number of the last commit is then written to a small file as well. If the database ends before that number when it is
opened, its write-ahead log was damaged or lost, and the log refuses to open rather than to serve old items.

`PRAGMA synchronous` and WAL: https://www.sqlite.org/pragma.html, https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from lookalike.disk_errors import is_disk_full, translated_disk_errors
from lookalike.errors import CollectionUnwritable, DiskFull, FormatTooNew, WritesDamaged
from lookalike.types import Identity
from lookalike.writes.entries import Entry

LOG_FILE, HEAD_FILE = "writes.sqlite", "writes.head"
LOG_WAL = f"{LOG_FILE}-wal"
LOG_FILES = (LOG_FILE, LOG_WAL, f"{LOG_FILE}-shm")
"""The database with its write-ahead log, and the index of that."""
_FORMAT = 1
_BUSY_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE item (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL, kind TEXT NOT NULL, is_own INTEGER NOT NULL, metadata TEXT NOT NULL,
    vector BLOB, thumbnail BLOB, content_hash BLOB, checksum INTEGER NOT NULL, blob_checksum INTEGER NOT NULL
);
CREATE INDEX item_number ON item (number);
CREATE TABLE new_column (name TEXT PRIMARY KEY, type BLOB NOT NULL);
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_COLUMNS = "id, number, kind, is_own, metadata, vector, thumbnail, content_hash, checksum, blob_checksum"
_WITHOUT_BLOBS = "id, number, kind, is_own, metadata, NULL, NULL, content_hash, checksum, 0"


def has_log(root: Path) -> bool:
    """Return whether a collection has ever been written to."""
    return (root / LOG_FILE).exists()


class WriteLog:
    """The log of one collection. One thread at a time may use it.

    Attributes:
        last: number of the last write; 0 before the first.
    """

    def __init__(self, root: Path, *, create: bool = False) -> None:
        """Open the log of the collection at `root`; with `create`, make an empty one where there is none.

        Raises:
            WritesDamaged: the log is not a sound database, or ends before an acknowledged write.
            FormatTooNew: a later release wrote it.
            CollectionUnwritable: it can't be opened for writing.
            DiskFull: there is no space to create it.
        """
        self.root = root
        self._path = root / LOG_FILE
        if not create and not self._path.exists():
            raise WritesDamaged(f"{self._path} is missing")
        with self._translated():
            self._connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                acknowledged = self._acknowledged()  # first: another process may write now, and raise both
                self._prepare(create=create)
                self._require_sound()
                self.last: int = self._one("SELECT coalesce(max(number), 0) FROM item")
                self._require_complete(acknowledged)
            except BaseException:
                self._connection.close()
                raise
        self._head: int | None = None
        self._columns = self.new_columns()

    def _prepare(self, *, create: bool) -> None:
        if create and not self._one("SELECT count(*) FROM sqlite_master"):
            self._connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        if not self._one("SELECT count(*) FROM sqlite_master"):
            self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_FORMAT}; COMMIT;")
        version = self._one("PRAGMA user_version")
        if version > _FORMAT:
            raise FormatTooNew(f"{self._path} has format {version}; this release reads {_FORMAT}; upgrade lookalike")

    def _require_sound(self) -> None:
        """Check that indexes and table agree: a damaged index would hide writes. A million items take a second."""
        problem = self._one("PRAGMA integrity_check(1)")
        if problem != "ok":
            raise WritesDamaged(f"{self._path} is damaged: {problem}; restore the collection from a snapshot")

    def _require_complete(self, acknowledged: int) -> None:
        """Check that the database reaches the last acknowledged write."""
        if self.last < acknowledged:
            raise WritesDamaged(
                f"{self._path} ends at write {self.last}, but write {acknowledged} was acknowledged: its write-ahead "
                f"log is damaged or missing; restore the collection from a snapshot, or remove {self.root / HEAD_FILE} "
                f"to go on without {acknowledged - self.last} writes"
            )

    def _acknowledged(self) -> int:
        """Return the number of the last acknowledged write, as far as it is known."""
        try:
            text = (self.root / HEAD_FILE).read_text("ascii").strip("\0\n")
            return int(text) if text else 0  # an empty file was created when the process ended, or the power failed
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise WritesDamaged(
                f"{self.root / HEAD_FILE} holds no number; restore the collection from a snapshot, or remove the file "
                "to go on without a check that all writes are there"
            ) from error

    # Reading

    def pending(self, after: int) -> Iterator[Entry]:
        """Yield the writes with a number above `after`, in order of their numbers. Raises WritesDamaged."""
        yield from self._entries(f"SELECT {_COLUMNS} FROM item WHERE number > ? ORDER BY number", (after,), blobs=True)

    def count_pending(self, after: int) -> int:
        """Return the number of items whose last write has a number above `after`."""
        with self._translated():
            return int(self._one("SELECT count(*) FROM item WHERE number > ?", after))

    def count_puts(self, after: int) -> int:
        """Return the number of items whose last write has a number above `after` and holds a vector."""
        with self._translated():
            return int(self._one("SELECT count(*) FROM item WHERE number > ? AND kind = 'put'", after))

    def all_entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the last write of every item ever written, in order of their numbers, without vectors and thumbnails.

        Args:
            after: a number; only later writes are yielded.

        Raises:
            WritesDamaged: a write differs from its checksum.
        """
        query = f"SELECT {_WITHOUT_BLOBS} FROM item WHERE number > ? ORDER BY number"
        yield from self._entries(query, (after,), blobs=False)

    def find(self, item_id: str) -> Entry | None:
        """Return the last write of an item, without vector and thumbnail; None if it was never written."""
        rows = self._entries(f"SELECT {_WITHOUT_BLOBS} FROM item WHERE id = ?", (item_id,), blobs=False)
        return next(iter(list(rows)), None)

    def new_columns(self) -> dict[str, pa.DataType]:
        """Return the columns that writes created, in their order."""
        with self._translated(), self._decoded():
            rows = self._connection.execute("SELECT name, type FROM new_column ORDER BY rowid").fetchall()
            return {name: pa.ipc.read_schema(pa.py_buffer(kind)).field(0).type for name, kind in rows}

    def encoder(self) -> Identity | None:
        """Return the identity of the encoder whose vectors the log holds; None before the first write."""
        value = self._state("encoder")
        with self._decoded():
            return None if value is None else tuple(json.loads(value))

    def released(self) -> int:
        """Return the number of the last write whose vector may be gone, since a version holds it."""
        value = self._state("released")
        with self._decoded():
            return int(value or 0)

    def require_fits(self, writes: int, version: str) -> None:
        """Check that the log has the writes that a version lacks.

        Args:
            writes: number of the last write that the version holds.
            version: its name, for the message.

        Raises:
            WritesDamaged: it has not, or the version holds later writes than the log.
        """
        released = self.released()
        if not released <= writes <= self.last:
            raise WritesDamaged(
                f"version {version} of {self.root} holds the writes up to {writes}, but the log has those from "
                f"{released + 1} to {self.last}: make the version current that was so before, or restore the "
                "collection from a snapshot"
            )

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read within the block be as of one moment, while another process writes."""
        with self._translated():
            self._connection.execute("BEGIN")
            self.last = self._one("SELECT coalesce(max(number), 0) FROM item")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    # Writing

    def commit(self, entries: Iterable[Entry], new_columns: Mapping[str, pa.DataType], encoder: Identity) -> None:
        """Store the last writes of items, on the disk when this returns.

        Args:
            entries: in order of their numbers, which are above `last`; of two for one item, the later one stays.
            new_columns: columns that writes have created or widened.
            encoder: whose vectors the entries hold.

        Raises:
            DiskFull: nothing was stored.
            CollectionUnwritable, WritesDamaged: likewise.
        """
        rows = [_row(entry) for entry in entries]
        self._open_head()
        with self._translated(), self._transaction():
            self._connection.executemany(
                f"INSERT OR REPLACE INTO item ({_COLUMNS}) VALUES ({', '.join('?' * 10)})", rows
            )
            for name, kind in new_columns.items():
                if self._columns.get(name) == kind:
                    continue
                self._connection.execute(
                    "INSERT INTO new_column VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET type = excluded.type",
                    (name, pa.schema([("", kind)]).serialize().to_pybytes()),
                )
            self._set_state("encoder", json.dumps(encoder))
        self._columns = dict(new_columns)
        if rows:
            self.last = rows[-1][1]
            self._write_head()

    def release(self, number: int) -> None:
        """Remove the vectors and thumbnails of the writes up to a number: a version holds them."""
        with self._translated():
            with self._transaction():
                self._connection.execute(
                    "UPDATE item SET vector = NULL, thumbnail = NULL, blob_checksum = 0 WHERE number <= ? "
                    "AND (vector IS NOT NULL OR thumbnail IS NOT NULL)",
                    (number,),
                )
                self._set_state("released", str(number))
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()

    def copy_to(self, folder: Path) -> None:
        """Copy the log as of this moment into a folder, as a log that can be opened there."""
        with self._translated(), closing(sqlite3.connect(folder / LOG_FILE)) as target:
            self._connection.backup(target)
            last = target.execute("SELECT coalesce(max(number), 0) FROM item").fetchone()[0]  # may be above `self.last`
            (folder / HEAD_FILE).write_text(_head_text(last), "ascii")

    def close(self) -> None:
        """Close the database; the last connection removes the write-ahead log."""
        if self._head is not None:
            os.close(self._head)
            self._head = None
        self._connection.close()

    def __enter__(self) -> WriteLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_head(self) -> None:
        """Open the file of the last number before anything is committed: a full disk can't stop its overwriting."""
        if self._head is None:
            with translated_disk_errors(self.root, "nothing was written"):
                self._head = os.open(self.root / HEAD_FILE, os.O_WRONLY | os.O_CREAT, 0o644)
                self._write_head()

    def _write_head(self) -> None:
        """Write the number of the last commit, which is not synced: after a power cut it may only be too low."""
        assert self._head is not None
        os.pwrite(self._head, _head_text(self.last).encode(), 0)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._commit()
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _commit(self) -> None:
        self._connection.execute("COMMIT")

    def _state(self, key: str) -> str | None:
        with self._translated():
            row = self._connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
            return None if row is None else str(row[0])

    def _set_state(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))

    def _entries(self, query: str, arguments: Sequence[Any], *, blobs: bool) -> Iterator[Entry]:
        with self._translated():
            for row in self._connection.execute(query, arguments):
                yield self._entry(row, blobs=blobs)

    def _entry(self, row: Sequence[Any], *, blobs: bool) -> Entry:
        item_id, number, kind, is_own, metadata, vector, thumbnail, content_hash, checksum, blob_checksum = row
        with self._decoded():
            sound = checksum == _checksum(item_id, number, kind, is_own, metadata, content_hash)
            if sound and (not blobs or blob_checksum == _blob_checksum(vector, thumbnail)):
                fields = json.loads(metadata)
                return Entry(item_id, number, kind, bool(is_own), fields, vector, thumbnail, content_hash)
        raise WritesDamaged(
            f"{self._path}: the write of item {item_id!r} differs from its checksum; restore the collection from a "
            "snapshot"
        )

    def _one(self, query: str, *arguments: Any) -> Any:
        return self._connection.execute(query, arguments).fetchone()[0]

    @contextmanager
    def _decoded(self) -> Iterator[None]:
        """Raise WritesDamaged for a value that is not of the kind that is written."""
        try:
            yield
        except (TypeError, ValueError, OSError, pa.ArrowException) as error:
            raise WritesDamaged(f"{self._path} is damaged: {error}; restore the collection from a snapshot") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise this project's errors for SQLite's."""
        try:
            yield
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code in (None, sqlite3.SQLITE_ERROR):  # Python's own for text that is no UTF-8; another schema
                raise WritesDamaged(
                    f"{self._path} is damaged: {error}; restore the collection from a snapshot"
                ) from error
            if code == sqlite3.SQLITE_FULL or is_disk_full(self.root):
                raise DiskFull(f"the disk of {self.root} is full; nothing was written: free some space") from error
            if code == sqlite3.SQLITE_BUSY:
                raise CollectionUnwritable(f"{self._path} is locked by another process: {error}") from error
            raise CollectionUnwritable(f"{self._path} can't be written to: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter for a message of SQLite's
            raise WritesDamaged(f"{self._path} is damaged: {error}; restore the collection from a snapshot") from error


def _row(entry: Entry) -> tuple[Any, ...]:
    metadata = json.dumps(dict(entry.metadata), ensure_ascii=False)
    fields = (entry.id, entry.number, entry.kind, int(entry.is_own), metadata)
    blobs = (entry.vector, entry.thumbnail)
    checksums = _checksum(*fields, entry.content_hash), _blob_checksum(*blobs)
    return (*fields, *blobs, entry.content_hash, *checksums)


def _checksum(item_id: str, number: int, kind: str, is_own: int, metadata: str, content_hash: bytes | None) -> int:
    text = json.dumps([item_id, number, kind, is_own, metadata]).encode()
    return zlib.crc32(content_hash or b"", zlib.crc32(text))


def _blob_checksum(vector: bytes | None, thumbnail: bytes | None) -> int:
    if vector is None and thumbnail is None:
        return 0
    return zlib.crc32(thumbnail or b"", zlib.crc32(vector or b""))


def _head_text(number: int) -> str:
    return f"{number:020d}\n"
