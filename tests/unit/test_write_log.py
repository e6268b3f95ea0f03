"""The log of writes: what it refuses to open, and what a damaged file may not do."""

from __future__ import annotations

from pathlib import Path

from lookalike.writes.entries import Entry
from lookalike.writes.log import HEAD_FILE, WriteLog

ENCODER = ("fake", "0" * 64, "0" * 64)


def entry(number: int, item_id: str = "") -> Entry:
    return Entry(item_id or f"item {number}", number, "put", True, {"price": number}, bytes(26), b"jpeg", bytes(16))


def test_process_that_ends_while_it_creates_the_head_file_does_no_damage(tmp_path: Path) -> None:
    WriteLog(tmp_path, create=True).close()
    for content in (b"", bytes(21)):
        (tmp_path / HEAD_FILE).write_bytes(content)
        with WriteLog(tmp_path) as log:
            log.commit([entry(log.last + 1)], {}, ENCODER)
    with WriteLog(tmp_path) as log:
        assert [each.number for each in log.pending(0)] == [1, 2]
        assert int((tmp_path / HEAD_FILE).read_text()) == 2
