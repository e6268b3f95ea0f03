"""Masked search skips lists without allowed rows, and FAISS's selectors are cached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexing.build.stores import build_store
from lookalike.approximate_search import approximate_search
from lookalike.stores.exact import ExactStore
from lookalike.stores.faiss.masks import MaskCache
from lookalike.stores.faiss.store import FaissStore
from lookalike.types import Bool, Float16
from tests.unit_vectors import unit

COUNT, DIM = 8_000, 24


@pytest.fixture(scope="module")
def vectors() -> Float16:
    random = np.random.default_rng(0)
    centres = random.standard_normal((60, DIM))
    return unit(centres[random.integers(0, 60, COUNT)] + 0.5 * random.standard_normal((COUNT, DIM))).astype(np.float16)


@pytest.mark.parametrize("preset", ["ivf-pq4", "ivf-rabitq", "opq-ivf-pq4", "ivf-sq8", "ivf-flat"])
@pytest.mark.parametrize("share", [0.02, 0.1])
def test_mask_of_rows_far_from_the_query(preset: str, share: float, vectors: Float16, tmp_path: Path) -> None:
    build_store(vectors, tmp_path, preset)
    store = FaissStore.open(tmp_path, {"nprobe": 6, "candidates": 200}, vectors)
    queries = unit(vectors[:40].astype(np.float32) + 0.1)
    towards = vectors.astype(np.float32) @ queries.mean(axis=0)
    mask: Bool = towards <= np.quantile(towards, share)
    truth = ExactStore(vectors).search(queries, 10, mask=mask)
    found = approximate_search(store, vectors, queries, 10, store.defaults, mask)
    assert all(mask[neighbors.rows].all() and len(neighbors.rows) == 10 for neighbors in found)
    assert np.mean([np.isin(t.rows, f.rows).mean() for t, f in zip(truth, found, strict=True)]) > 0.85


def test_mask_with_fewer_lists_than_nprobe(vectors: Float16, tmp_path: Path) -> None:
    build_store(vectors, tmp_path, "ivf-pq4")
    store = FaissStore.open(tmp_path, {"nprobe": 200, "candidates": 4_000}, vectors)
    mask: Bool = np.zeros(COUNT, dtype=bool)
    mask[:40] = True
    queries = unit(vectors[-5:].astype(np.float32))
    for found, truth in zip(
        approximate_search(store, vectors, queries, 10, store.defaults, mask),
        ExactStore(vectors).search(queries, 10, mask=mask),
        strict=True,
    ):
        np.testing.assert_array_equal(found.rows, truth.rows)


class TestSelections:
    def test_only_read_only_masks_are_cached(self) -> None:
        made: list[Bool] = []
        selections = MaskCache(lambda mask: made.append(mask))
        mask: Bool = np.zeros(9, dtype=bool)
        assert selections.get(mask).allowed == 0
        mask[3] = True
        assert selections.get(mask).allowed == 1
        mask.flags.writeable = False
        assert selections.get(mask) is selections.get(mask)
        assert len(made) == 3

    def test_deleted_masks_leave_the_cache(self) -> None:
        selections = MaskCache(lambda mask: None)
        for i in range(200):
            mask: Bool = np.arange(9) < i % 9
            mask.flags.writeable = False
            assert selections.get(mask).allowed == i % 9
            del mask
        assert len(selections._cache) == 1

    def test_nonempty_lists_are_counted(self) -> None:
        selections = MaskCache(lambda mask: np.array([True, False, True]))
        selection = selections.get(np.ones(4, dtype=bool))
        assert (selection.allowed, selection.list_count) == (4, 2)
        assert selection.lists is not None
