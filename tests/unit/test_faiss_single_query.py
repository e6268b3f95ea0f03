"""Single queries return the same as batches, though they choose lists by codes and share them between threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lookalike.stores.faiss.library import INDEX_FILE, extract_ivf, faiss
from lookalike.stores.faiss.single_query import SingleQueryIndex, has_coded_quantizer
from lookalike.stores.faiss.store import FaissStore
from lookalike.types import Bool, Float16, Float32, Int64
from tests.unit_vectors import unit

FACTORIES = {
    "fast-scan": (32, "IVF1024,PQ16x4fsr"),
    "one bit": (32, "IVF1024,RaBitQfs"),
    "rotated": (32, "OPQ8_16,IVF1024,PQ8x4fsr"),
    "padded": (31, "Pad32,IVF1024,PQ16x4fsr"),
    "whole numbers": (32, "IVF1024,SQ8"),
    "odd width": (31, "IVF1024,Flat"),
    "few lists": (32, "IVF16,PQ16x4fsr"),
}
ROWS, QUERIES, K = 6_000, 60, 10


def drawn(count: int, dim: int, seed: int) -> Float32:
    return unit(np.random.default_rng(seed).standard_normal((count, dim)))


@pytest.fixture(scope="module", params=FACTORIES, ids=lambda name: str(name).replace(" ", "-"))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FaissStore:
    dim, factory = FACTORIES[request.param]
    vectors = drawn(ROWS, dim, 1)
    index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    extract_ivf(index).cp.niter = 2
    if factory.startswith("OPQ"):
        faiss.downcast_VectorTransform(index.chain.at(0)).niter = 2
    index.train(vectors)
    index.add(vectors)
    folder: Path = tmp_path_factory.mktemp("store")
    faiss.write_index(index, str(folder / INDEX_FILE))
    halves: Float16 = vectors.astype(np.float16)
    return FaissStore.open(folder, {"nprobe": extract_ivf(index).nlist // 8, "candidates": 200}, halves)


@pytest.fixture(scope="module")
def queries(store: FaissStore) -> Float32:
    return drawn(QUERIES, store.dim, 2)


def found(store: FaissStore, queries: Float32, mask: Bool | None = None) -> Int64:
    return np.array([neighbors.rows for neighbors in store.search(queries, K, mask=mask)])


def overlap(a: Int64, b: Int64) -> float:
    return float(np.mean([len(np.intersect1d(x, y)) for x, y in zip(a, b, strict=True)]) / K)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("share", [None, 0.3, 0.02])
def test_single_query_equals_batch(store: FaissStore, queries: Float32, share: float | None, threads: int) -> None:
    mask: Bool | None = None if share is None else np.random.default_rng(3).random(ROWS) < share
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        alone = np.concatenate([found(store, queries[i : i + 1], mask) for i in range(QUERIES)])
    finally:
        faiss.omp_set_num_threads(before)
    assert mask is None or mask[alone].all()
    assert overlap(alone, found(store, queries, mask)) >= 0.97


def test_exhaustive_search_returns_every_row(store: FaissStore, queries: Float32) -> None:
    everything = {"nprobe": 1 << 20, "candidates": ROWS}
    for query in queries[:5]:
        assert len(store.search(query[None], ROWS, everything)[0].rows) == ROWS


def test_single_queries_concurrent_with_batches(store: FaissStore, queries: Float32) -> None:
    mask: Bool = np.random.default_rng(4).random(ROWS) < 0.5

    def ask(i: int) -> tuple[Int64, Int64]:
        size, which = (1, QUERIES)[i % 2], (None, mask)[i // 2 % 2]
        return found(store, queries[:size], which)[0], expected[size, which is None]

    expected = {(n, m is None): found(store, queries[:n], m)[0] for n in (1, QUERIES) for m in (None, mask)}
    with ThreadPoolExecutor(4) as pool:
        for rows, right in pool.map(ask, range(200)):
            assert rows.tolist() == right.tolist()


@pytest.mark.parametrize("factory", ["IVF4096,PQ2x4fsr", "IVF4096,SQ8", "IVF64,SQ8"])
def test_deleted_view_frees_its_memory(factory: str) -> None:
    vectors = drawn(ROWS, 4, 1)
    index = faiss.index_factory(4, factory, faiss.METRIC_INNER_PRODUCT)
    extract_ivf(index).cp.niter = 1
    index.train(vectors)
    index.add(vectors)
    SingleQueryIndex(index)
    before = _anonymous()
    for _ in range(60):
        view = SingleQueryIndex(index)
        view.index.search(vectors[:1], K)
    assert _anonymous() - before < 8 << 20  # a copy of the list headers for each view would take 40 MB


def _anonymous() -> int:
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("needs Linux's /proc")
    return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssAnon"))


@pytest.mark.parametrize(("name", "by_codes"), [("fast-scan", True), ("few lists", False), ("odd width", False)])
def test_coded_quantizer_from_1024_lists(name: str, by_codes: bool, tmp_path: Path) -> None:
    dim, factory = FACTORIES[name]
    index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    extract_ivf(index).cp.niter = 1
    index.train(drawn(ROWS, dim, 1))
    index.add(drawn(ROWS, dim, 1))
    path = tmp_path / INDEX_FILE
    faiss.write_index(index, str(path))
    opened = faiss.read_index(str(path))
    view = SingleQueryIndex(opened)
    assert has_coded_quantizer(extract_ivf(view.index)) is by_codes
    assert not has_coded_quantizer(extract_ivf(opened))
    query = drawn(1, dim, 5)
    whole = extract_ivf(opened).nlist
    for searched in (opened, view.index):
        extract_ivf(searched).nprobe = whole
    assert view.index.search(query, K)[1].tolist() == opened.search(query, K)[1].tolist()
    del opened  # the view keeps the shared lists alive
    assert view.index.search(query, K)[1].min() >= 0
