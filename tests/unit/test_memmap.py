"""The memory map for single rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pages import cached_share, drop
from benchmarks.resident import mapped
from lookalike.memmap import random_access_mmap
from lookalike.types import Float16

SHAPE = (4_096, 512)


@pytest.fixture
def vectors(tmp_path: Path) -> Float16:
    path = tmp_path / "vectors.npy"
    np.save(path, np.random.default_rng(0).standard_normal(SHAPE).astype(np.float16))
    opened: Float16 = np.load(path, mmap_mode="r")
    return opened


def test_map_holds_the_same_vectors(vectors: Float16) -> None:
    again = random_access_mmap(vectors)
    assert again is not vectors
    assert (again.shape, again.dtype) == (vectors.shape, vectors.dtype)
    assert np.array_equal(again, vectors)
    assert not again.flags.writeable


def test_arrays_other_than_whole_maps_are_returned(vectors: Float16) -> None:
    for array in (np.array(vectors), vectors[10:], np.asarray(vectors)):
        assert random_access_mmap(array) is array


def test_deleted_file_keeps_its_map(vectors: Float16, tmp_path: Path) -> None:
    (tmp_path / "vectors.npy").unlink()
    assert random_access_mmap(vectors) is vectors


@pytest.mark.skipif(sys.platform != "linux", reason="the page cache is inspected through Linux interfaces")
def test_reading_a_row_loads_one_page(vectors: Float16, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    again = random_access_mmap(vectors)
    try:
        drop(path)
    except OSError as error:
        pytest.skip(str(error))
    again[2_000].sum()
    assert mapped(path) <= 2 * 4096
    assert cached_share(path) * path.stat().st_size <= 2 * 4096
