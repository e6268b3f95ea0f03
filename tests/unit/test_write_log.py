"""The log of writes: damage that it must notice, and what is no damage."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from lookalike.errors import FormatTooNew, WritesDamaged
from lookalike.writes.entries import Entry
from lookalike.writes.log import HEAD_FILE, LOG_FILE, WriteLog

ENCODER = ("fake", 13, 8, "0" * 64)
WAL_FILE = f"{LOG_FILE}-wal"
_PAGE, _INDEX_PAGES = 4_096, (2, 10)
_WRITES = 60


def entry(number: int, item_id: str = "") -> Entry:
    metadata = {"price": number, "text": "x" * (number % 50)}
    return Entry(item_id or f"item {number}", number, "put", True, metadata, bytes(26), b"jpeg" * number, bytes(16))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a log as a process that was killed leaves it: part of it only in the write-ahead log."""
    folder = tmp_path_factory.mktemp("log")
    with WriteLog(folder, create=True) as log:
        for number in range(1, _WRITES + 1):
            log.commit([entry(number)], {"price": pa.int64(), "text": pa.string()}, ENCODER)
        yield copied(folder, tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def closed(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same log, closed: all of it is in the database."""
    folder = copied(killed, tmp_path_factory.mktemp("closed"))
    WriteLog(folder).close()
    assert not (folder / WAL_FILE).exists()
    return folder


def copied(source: Path, target: Path) -> Path:
    for name in (LOG_FILE, WAL_FILE, HEAD_FILE):
        (target / name).unlink(missing_ok=True)
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    return target


def everything(folder: Path) -> object:
    """Return all that a log holds."""
    with WriteLog(folder) as log:
        return log.last, list(log.pending(0)), log.new_columns(), log.encoder(), log.released()


def test_process_that_ends_while_it_creates_the_head_file_does_no_damage(tmp_path: Path) -> None:
    WriteLog(tmp_path, create=True).close()
    for content in (b"", bytes(21)):
        (tmp_path / HEAD_FILE).write_bytes(content)
        with WriteLog(tmp_path) as log:
            log.commit([entry(log.last + 1)], {}, ENCODER)
    with WriteLog(tmp_path) as log:
        assert [each.number for each in log.pending(0)] == [1, 2]
        assert int((tmp_path / HEAD_FILE).read_text()) == 2


def test_log_of_a_killed_process_is_whole(killed: Path, closed: Path, tmp_path: Path) -> None:
    assert everything(copied(killed, tmp_path)) == everything(closed)


@pytest.mark.parametrize(("name", "where"), [(LOG_FILE, "anywhere"), (LOG_FILE, "in indexes"), (WAL_FILE, "anywhere")])
def test_flipped_bit_loses_no_write(killed: Path, closed: Path, tmp_path: Path, name: str, where: str) -> None:
    source = killed if name == WAL_FILE else closed
    sound, content = everything(closed), (source / name).read_bytes()
    places = [
        start + place
        for start in range(0, len(content), _PAGE)
        if where == "anywhere" or content[start] in _INDEX_PAGES
        for place in range(min(_PAGE, len(content) - start))
        if content[start + place]
    ]
    chance, outcomes = random.Random(name + where), Counter[bool]()
    for _ in range(120):
        copied(source, tmp_path)
        damaged, place = bytearray(content), chance.choice(places)
        damaged[place] ^= 1 << chance.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        try:
            found = everything(tmp_path)
        except (WritesDamaged, FormatTooNew):  # the latter if the bit is of the format's number
            outcomes[True] += 1
        else:
            outcomes[False] += 1
            if name == LOG_FILE:  # the encoder's name and the columns' have no checksum
                assert found[:2] == sound[:2], f"bit of byte {place} of {name}"  # type: ignore[index]
            else:
                assert found == sound, f"bit of byte {place} of {name}"
    assert outcomes[True], outcomes


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99, None])
def test_lost_end_of_the_write_ahead_log_is_noticed(killed: Path, tmp_path: Path, kept: float | None) -> None:
    wal = copied(killed, tmp_path) / WAL_FILE
    if kept is None:
        wal.unlink()
    else:
        wal.write_bytes(wal.read_bytes()[: int(kept * wal.stat().st_size)])
    with pytest.raises(WritesDamaged, match=rf"ends at write \d+, but write {_WRITES} was acknowledged"):
        everything(tmp_path)


def test_lost_database_is_noticed(killed: Path, closed: Path, tmp_path: Path) -> None:
    for source in (killed, closed):
        (copied(source, tmp_path) / LOG_FILE).unlink()
        (tmp_path / WAL_FILE).unlink(missing_ok=True)
        with pytest.raises(WritesDamaged, match="acknowledged"):
            WriteLog(tmp_path, create=True)
