"""Shards of encoded images in the work folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from indexing.ingest.shards import EncodedRow, ShardPool, ShardWriter
from indexing.row_stream import ENCODED_SCHEMA, vectors_of


def encoded_row(i: int, fingerprint: int = 7) -> EncodedRow:
    return EncodedRow(i, fingerprint, np.full(4, i, np.float16).tobytes(), b"thumbnail", 10 + i, 20, "JPEG")


def test_rows_are_found_by_identity_in_given_order(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, seconds=0) as writer:
        for i in range(5):
            writer.add([encoded_row(i), EncodedRow(100 + i, 1, code="image_undecodable", message="no")])
    assert len(list(tmp_path.glob("encoded-*.arrow"))) == 5
    pool = ShardPool(tmp_path)
    rows = pool.find(np.array([3, 0, 102, 3], np.uint64), np.array([7, 7, 1, 8], np.uint64))
    assert rows[3] == -1  # another fingerprint
    found = pool.take(rows[:3])
    assert found.schema == ENCODED_SCHEMA
    assert found.column("id_hash").to_pylist() == [3, 0, 102]
    assert found.column("code").to_pylist() == [None, None, "image_undecodable"]
    np.testing.assert_array_equal(vectors_of(found.slice(0, 2), 4), [[3] * 4, [0] * 4])


def test_encoded_row_wins_over_rejected_one(tmp_path: Path) -> None:
    failed = EncodedRow(3, 7, code="source_invalid", message="the disk was away")
    for row in (failed, encoded_row(3), failed):
        with ShardWriter(tmp_path, seconds=5) as writer:
            writer.add([row, EncodedRow(4, 7, code="image_undecodable", message="no")])
    identities = np.array([3, 4], np.uint64), np.array([7, 7], np.uint64)
    pool = ShardPool(tmp_path)
    assert pool.take(pool.find(*identities)).column("code").to_pylist() == [None, "image_undecodable"]
    assert (ShardPool(tmp_path, rejected=False).find(*identities) >= 0).tolist() == [True, False]


def test_empty_folder_has_no_rows(tmp_path: Path) -> None:
    pool = ShardPool(tmp_path)
    assert pool.find(np.array([1], np.uint64), np.array([1], np.uint64)).tolist() == [-1]
    assert len(pool.take(np.empty(0, np.int64))) == 0


def test_writer_appends_and_unfinished_files_are_ignored(tmp_path: Path) -> None:
    for i in range(2):
        with ShardWriter(tmp_path, seconds=5) as writer:
            writer.add([encoded_row(i)])
    (tmp_path / ".encoded-00000002.arrow.part").write_bytes(b"half")
    assert len(ShardPool(tmp_path)) == 2
