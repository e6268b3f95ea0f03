"""The writer of `.npy` files of unknown length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexing.build.npy_writer import NpyWriter


@pytest.mark.parametrize("shape", [(), (3,)])
def test_numpy_reads_appended_blocks(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pieces = [np.arange(n * 3, dtype=np.float16).reshape(n, 3)[:, :3] for n in (0, 2, 5)]
    pieces = [piece if shape else np.ascontiguousarray(piece[:, 0]) for piece in pieces]
    with NpyWriter(tmp_path / "x.npy", np.dtype(np.float16), shape) as writer:
        for piece in pieces:
            writer.append(piece)
    found = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.concatenate(pieces))


def test_empty_file_is_valid(tmp_path: Path) -> None:
    NpyWriter(tmp_path / "x.npy", np.dtype(np.uint64), ()).close()
    assert np.load(tmp_path / "x.npy").shape == (0,)


def test_other_dtype_is_rejected(tmp_path: Path) -> None:
    writer = NpyWriter(tmp_path / "x.npy", np.dtype(np.float16), (2,))
    with writer, pytest.raises(ValueError, match="does not fit"):
        writer.append(np.zeros((1, 2), np.float32))
