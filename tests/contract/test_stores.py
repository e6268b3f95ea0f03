"""Contract of every registered store, checked against naive search: `faiss` in several sizes, and every preset.

`torch-exact` runs on CUDA if there is a device, else on the CPU.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexing.build.stores import build_store, complete_store
from lookalike.errors import DimensionMismatch, QueryError, StoreError, StoreUnavailable, UnknownStore
from lookalike.rerank import rerank
from lookalike.stores.exact import ExactStore
from lookalike.stores.faiss.library import INDEX_FILE, extract_ivf
from lookalike.stores.presets import MIN_CODED_LISTS, PRESETS, Preset, choose_nlist, default_preset
from lookalike.stores.protocol import SearchParameters, VectorStore
from lookalike.stores.registry import create_builder, open_store, resolve_kind, store_kinds, store_names
from lookalike.types import Float16, Float32, Neighbors


@dataclass(frozen=True)
class Case:
    """A kind of store or a preset, over n clustered vectors of width d."""

    name: str
    n: int
    d: int

    def __str__(self) -> str:
        return f"{self.name}-{self.n}x{self.d}"

    @property
    def kind(self) -> str:
        return "milvus" if self.milvus else resolve_kind(self.name, self.n)

    @property
    def milvus(self) -> bool:
        return self.name.startswith("milvus-")

    def store_name(self, folder: Path, server: str = "") -> str:
        """Return what `--store` takes; a case of Milvus has a file, or a server, of its own."""
        if not self.milvus:
            return self.name
        place = f"{server}/contract_{uuid.uuid4().hex[:8]}" if server else folder / "milvus.db"
        return f"milvus:{place}?index={self.name.removeprefix('milvus-')}"

    @property
    def graph(self) -> bool:
        return "hnsw" in self.name


CASES = [
    Case("exact", 1, 8),
    Case("exact", 700, 33),
    Case("exact", 9_000, 16),
    Case("torch-exact", 1, 8),
    Case("torch-exact", 700, 33),
    Case("torch-exact", 9_000, 16),
    Case("faiss", 1, 8),
    Case("faiss", 30, 16),
    Case("faiss", 700, 33),
    Case("faiss", 1_500, 15),
    Case("faiss", 4_000, 64),
    Case("faiss", 1_200, 640),
    Case("ivf-pq4", 2_000, 32),
    Case("ivf-rabitq", 4_000, 64),
    Case("ivf-rabitq", 1_500, 33),
    Case("opq-ivf-pq4", 4_000, 64),
    Case("opq-ivf-pq4", 1_100, 30),
    Case("ivf-sq8", 5, 16),
    Case("ivf-sq8", 700, 33),
    Case("ivf-flat", 3_000, 33),
    Case("hnsw-sq8", 1, 8),
    Case("hnsw-sq8", 2_000, 33),
    Case("milvus-exact", 1, 8),
    Case("milvus-exact", 700, 33),
    Case("milvus-ivf-flat", 1_500, 16),
    Case("milvus-ivf-sq8", 1_500, 33),
    Case("milvus-hnsw-sq8", 1_500, 16),
]


@dataclass(frozen=True)
class Built:
    case: Case
    folder: Path
    vectors: Float16
    queries: Float32
    params: dict[str, object]

    def open(self) -> VectorStore:
        return open_store(self.case.kind, self.folder, self.vectors, self.params)

    def everything(self) -> SearchParameters:
        """Return parameters with which an approximate store visits everything."""
        if self.case.kind not in ("faiss", "milvus"):
            return {}
        if self.case.name == "milvus-exact":
            return {"candidates": self.case.n}
        return {"efSearch" if self.case.graph else "nprobe": max(1, self.case.n), "candidates": self.case.n}

    def searched(self, k: int, mask: np.ndarray | None = None) -> list[Neighbors]:
        """Search exhaustively and re-rank, as the searcher does."""
        store = self.open()
        found = store.search(self.queries, k if store.exact else self.case.n, self.everything(), mask)
        return found if store.exact else rerank(self.queries, found, self.vectors, k)


def clustered(n: int, d: int, seed: int) -> Float32:
    """Unit vectors in clusters around a common mean, as from contrastive encoders; the clusters depend only on d."""
    centres = np.random.default_rng(d).standard_normal((20, d)) + 1.0
    rng = np.random.default_rng(seed)
    x = centres[rng.integers(0, 20, n)] + 0.5 * rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def naive(vectors: Float16, queries: Float32) -> np.ndarray:
    """(q, n) cosines in float64."""
    v, q = vectors.astype(np.float64), queries.astype(np.float64)
    return (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (v / np.linalg.norm(v, axis=1, keepdims=True)).T


@pytest.fixture(scope="module", params=CASES, ids=str)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return make(request.param, tmp_path_factory.mktemp("store"))


def make(case: Case, folder: Path, server: str = "") -> Built:
    vectors = clustered(case.n, case.d, seed=1).astype(np.float16)
    vectors[case.n // 2] = vectors[0]  # a duplicate, so that there is a tie
    np.save(folder / "vectors.npy", vectors)
    mapped = np.load(folder / "vectors.npy", mmap_mode="r")
    kind, params = build_store(mapped, folder, case.store_name(folder, server))
    assert kind == case.kind
    return Built(case, folder, mapped, clustered(8, case.d, seed=2), dict(params))


def test_faiss_patched_by_torch_utils_works(tmp_path: Path) -> None:
    """`faiss.contrib.torch_utils` replaces `search` for the whole process; metric learning libraries import it."""
    script = """
import sys, faiss, faiss.contrib.torch_utils
from pathlib import Path
import numpy as np
from indexing.build.stores import build_store
from lookalike.stores.registry import open_store
vectors = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
kind, params = build_store(vectors, Path(sys.argv[1]), "faiss")
store = open_store(kind, Path(sys.argv[1]), vectors, params)
print(store.search(np.float32(vectors[2:3]), 100, {"nprobe": 300})[0].rows.tolist().count(2))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1", done.stderr


def test_every_kind_and_preset_is_tested() -> None:
    assert {case.kind for case in CASES} == set(store_kinds())
    names = {case.name for case in CASES if not case.milvus}
    assert names | {"auto", "milvus"} == set(store_names())


def test_store_attributes(built: Built) -> None:
    store = built.open()
    assert (store.kind, store.count, store.dim) == (built.case.kind, built.case.n, built.case.d)
    assert built.params["count"] == built.case.n
    assert set(store.defaults) <= set(built.params)


def test_exhaustive_search_equals_naive_search(built: Built) -> None:
    k = min(10, built.case.n)
    truth = naive(built.vectors, built.queries)
    for scores, found in zip(truth, built.searched(k), strict=True):
        assert len(found.rows) == k
        np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][:k], atol=1e-6)
        np.testing.assert_allclose(found.scores, scores[found.rows], atol=1e-6)


def test_defaults_find_most_true_neighbors(built: Built) -> None:
    store = built.open()
    truth = ExactStore(built.vectors).search(built.queries, 10)
    found = rerank(built.queries, store.search(built.queries, candidates(store)), built.vectors, 10)
    overlap = [len(np.intersect1d(t.rows, f.rows)) / len(t.rows) for t, f in zip(truth, found, strict=True)]
    assert np.mean(overlap) >= 0.9


def candidates(store: VectorStore) -> int:
    """Return the number of rows that the store's defaults re-rank."""
    return store.defaults.get("candidates", 100)


@pytest.mark.parametrize("k", [1, 7, 10_000_000])
def test_result_shape(built: Built, k: int) -> None:
    answers = built.open().search(built.queries, k)
    assert len(answers) == len(built.queries)
    for found in answers:
        assert found.rows.dtype == np.int64
        assert found.scores.dtype == np.float32
        assert len(found.rows) == len(found.scores) <= min(k, built.case.n)
        assert ((found.rows >= 0) & (found.rows < built.case.n)).all()
        assert len(np.unique(found.rows)) == len(found.rows)
        assert_sorted(found)


def assert_sorted(found: Neighbors) -> None:
    """Best first, ties by ascending row."""
    steps = np.diff(found.scores)
    assert (steps <= 0).all()
    assert (np.diff(found.rows)[steps == 0] > 0).all()


def test_a_stored_vector_finds_itself_with_score_one(built: Built) -> None:
    queries = np.array(built.vectors[:1], dtype=np.float32)
    store = built.open()
    found = rerank(queries, store.search(queries, candidates(store)), built.vectors, 50)[0]
    assert found.rows[0] == 0
    assert found.scores[0] == pytest.approx(1.0, abs=1e-6)
    assert found.scores.max() <= 1.0


def test_equal_vectors_come_in_row_order(built: Built) -> None:
    if built.case.n == 1:
        return
    queries = np.array(built.vectors[:1], dtype=np.float32)
    found = replace(built, queries=queries).searched(2)[0]
    assert found.rows.tolist() == [0, built.case.n // 2]
    assert found.scores[0] == found.scores[1]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_mask_is_respected(built: Built, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random(built.case.n) < share
    k = 10
    truth = np.where(mask, naive(built.vectors, built.queries), -np.inf)
    for scores, found in zip(truth, built.searched(k, mask), strict=True):
        assert mask[found.rows].all()
        assert len(found.rows) == min(k, mask.sum())
        np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][: len(found.rows)], atol=1e-6)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16), allowed=st.integers(1, 12))
def test_narrow_mask_returns_all_allowed_rows(built: Built, seed: int, allowed: int) -> None:
    allowed = min(allowed, built.case.n)
    mask = np.zeros(built.case.n, dtype=bool)
    mask[np.random.default_rng(seed).choice(built.case.n, allowed, replace=False)] = True
    for found in built.open().search(built.queries, 10, mask=mask):  # with the default parameters
        assert len(found.rows) == min(10, allowed)
        assert mask[found.rows].all()


def test_empty_mask_returns_nothing(built: Built) -> None:
    for found in built.open().search(built.queries, 5, mask=np.zeros(built.case.n, dtype=bool)):
        assert found.rows.size == found.scores.size == 0


def test_inputs_are_not_modified(built: Built) -> None:
    queries, mask = built.queries.copy(), np.ones(built.case.n, dtype=bool)
    params = dict(built.everything())
    built.open().search(queries, 5, params, mask)
    assert np.array_equal(queries, built.queries)
    assert mask.all()
    assert params == dict(built.everything())


def test_read_only_and_strided_queries(built: Built) -> None:
    wide = np.repeat(built.queries, 2, axis=1)
    strided = wide[:, ::2]
    strided.flags.writeable = False
    assert_same(built.open().search(strided, 5), built.open().search(built.queries, 5))


def test_no_queries(built: Built) -> None:
    assert built.open().search(np.empty((0, built.case.d), dtype=np.float32), 5) == []


def test_other_widths_are_rejected(built: Built) -> None:
    with pytest.raises(DimensionMismatch):
        built.open().search(np.ones((1, built.case.d + 1), dtype=np.float32), 5)
    with pytest.raises(DimensionMismatch):
        built.open().search(np.ones(built.case.d, dtype=np.float32), 5)
    with pytest.raises(DimensionMismatch):
        built.open().search(built.queries, 5, mask=np.ones(built.case.n + 1, dtype=bool))


def test_vectors_of_another_size_are_rejected(built: Built) -> None:
    if built.case.kind != "faiss":
        return  # the store is its vectors
    with pytest.raises(StoreUnavailable, match="rows"):
        open_store(built.case.kind, built.folder, np.concatenate([built.vectors, built.vectors]), built.params)
    with pytest.raises(DimensionMismatch):
        open_store(built.case.kind, built.folder, built.vectors[:, 1:], built.params)


def test_single_queries_equal_the_batch(built: Built) -> None:
    store = built.open()
    single = [store.search(built.queries[i : i + 1], 9)[0] for i in range(len(built.queries))]
    batch = store.search(built.queries, 9)
    assert_same([Neighbors(f.rows, f.scores) for f in single], batch, exact=store.exact)


def assert_same(left: list[Neighbors], right: list[Neighbors], exact: bool = True) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        if exact:
            assert np.array_equal(a.rows, b.rows)
        np.testing.assert_allclose(a.scores, b.scores, atol=0 if exact else 0.02)


def test_parameters_travel_with_the_call(built: Built) -> None:
    """Concurrent searches use their own parameters, and the defaults do not change."""
    store = built.open()
    param_sets: list[SearchParameters] = [{}, built.everything()]
    if built.case.kind == "faiss":
        param_sets.append({"efSearch" if built.case.graph else "nprobe": 1})
    expected = [store.search(built.queries, 10, params) for params in param_sets]
    before, barrier = dict(store.defaults), threading.Barrier(2 * len(param_sets))

    def worker(number: int) -> None:
        barrier.wait()
        for _ in range(10):
            assert_same(
                store.search(built.queries, 10, param_sets[number % len(param_sets)]),
                expected[number % len(param_sets)],
            )

    with ThreadPoolExecutor(2 * len(param_sets)) as pool:
        list(pool.map(worker, range(2 * len(param_sets))))
    assert store.defaults == before


def test_reopened_store_returns_the_same(built: Built) -> None:
    assert_same(built.open().search(built.queries, 10), built.open().search(built.queries, 10))


def test_manifest_parameters_become_defaults(built: Built) -> None:
    if built.case.kind == "faiss":
        chosen = {"efSearch" if built.case.graph else "nprobe": 3, "candidates": 17}
        assert open_store("faiss", built.folder, built.vectors, {**built.params, **chosen}).defaults == chosen


def test_building_twice_gives_the_same_files(built: Built, tmp_path: Path) -> None:
    if built.case.graph or built.case.milvus:
        return  # a graph's links depend on the order in which threads finish; Milvus writes files of its own
    again = make(built.case, tmp_path)
    for path in sorted(tmp_path.iterdir()):
        assert path.read_bytes() == (built.folder / path.name).read_bytes(), path.name
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in built.folder.iterdir())
    assert set(again.params) == set(built.params)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    vectors = clustered(2_000, 16, seed=1).astype(np.float16)
    build_store(vectors, tmp_path, "faiss", lambda stage, done, total: seen.append((stage, done, total)))
    assert seen[0] == ("train", 2_000, 2_000)
    assert seen[-1] == ("add", 2_000, 2_000)


def damaged(kind: Callable[[bytes], bytes], folder: Path) -> Built:
    built = make(Case("faiss", 1_500, 16), folder)
    path = folder / INDEX_FILE
    path.write_bytes(kind(path.read_bytes()))
    return built


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:3], id="three-bytes"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: data[:-1], id="one-byte-short"),
        pytest.param(lambda data: b"not an index" * 100, id="text"),
        pytest.param(lambda data: data[:40] + b"\xff" * 16 + data[56:], id="wild-sizes"),
    ],
)
def test_a_damaged_index_is_unavailable(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        damaged(damage, tmp_path).open()


def test_a_missing_index_is_unavailable(tmp_path: Path) -> None:
    built = make(Case("faiss", 30, 16), tmp_path)
    (tmp_path / INDEX_FILE).unlink()
    with pytest.raises(StoreUnavailable, match="missing"):
        built.open()


@pytest.mark.parametrize("wish", ["auto", "exact", "torch-exact"])
def test_an_empty_exact_store(wish: str, tmp_path: Path) -> None:
    vectors = np.empty((0, 8), dtype=np.float16)
    kind, params = build_store(vectors, tmp_path, wish)
    found = open_store(kind, tmp_path, vectors, params).search(clustered(2, 8, seed=1), 5)
    assert [f.rows.size for f in found] == [0, 0]


def test_empty_inverted_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="exact"):
        build_store(np.empty((0, 8), dtype=np.float16), tmp_path, "faiss")


@pytest.mark.parametrize("params", [{"nprobes": 3}, {"nprobe": 0}, {"candidates": -1}])
def test_invalid_parameters_are_rejected(params: SearchParameters, tmp_path: Path) -> None:
    store = make(Case("faiss", 30, 16), tmp_path).open()
    with pytest.raises(QueryError, match=next(iter(params))):
        store.search(clustered(1, 16, seed=3), 5, params)


def test_builder_rejects_wrong_shapes_and_counts(tmp_path: Path) -> None:
    builder = create_builder("faiss", 2_000, 16)
    with pytest.raises(DimensionMismatch):
        builder.train(clustered(2_000, 15, seed=1))
    with pytest.raises(StoreUnavailable):
        builder.add(clustered(10, 16, seed=1))  # not trained
    builder.train(clustered(2_000, 16, seed=1))
    with pytest.raises(DimensionMismatch):
        builder.add(clustered(10, 15, seed=1))
    builder.add(clustered(10, 16, seed=1))
    with pytest.raises(StoreUnavailable, match="10 vectors were added where 2000"):
        builder.finish(tmp_path)


def test_store_names_resolve() -> None:
    assert resolve_kind("auto", 9_999) == "exact"
    assert resolve_kind("auto", 10_000) == "faiss"
    assert resolve_kind("faiss", 5) == "faiss"
    for call in (
        lambda: resolve_kind("weaviate", 5),
        lambda: create_builder("weaviate", 5, 8),
        lambda: open_store("weaviate", Path(), np.empty((0, 8), dtype=np.float16)),
    ):
        with pytest.raises(UnknownStore, match=r"'weaviate'.*exact, faiss"):
            call()


@given(n=st.integers(1, 10**9), d=st.integers(1, 4096))
def test_chosen_nlist_can_be_trained(n: int, d: int) -> None:
    nlist = choose_nlist(n)
    assert 1 <= nlist <= max(1, n // 39)
    assert f"IVF{nlist}," in default_preset(n).factory_string(n, d)


@pytest.mark.parametrize("preset", [preset for preset in PRESETS.values() if preset.has_index], ids=lambda p: p.name)
@pytest.mark.parametrize(("n", "d"), [(20_000, 64), (20_000, 33)])
def test_memory_estimate_matches_the_file(preset: Preset, n: int, d: int, tmp_path: Path) -> None:
    """All of the file can become resident, and a few centroids a second time for single queries."""
    make(Case(preset.name, n, d), tmp_path)
    size = (tmp_path / INDEX_FILE).stat().st_size
    if preset.is_ivf:
        index = faiss.read_index(str(tmp_path / INDEX_FILE))
        centroids = extract_ivf(index).quantizer
        assert centroids.ntotal < MIN_CODED_LISTS
        size += 4 * centroids.ntotal * centroids.d
    assert preset.memory_bytes(n, d) == pytest.approx(size, rel=0.05)


def test_exact_store_memory_includes_float32_copy() -> None:
    vectors = clustered(1_000, 16, seed=1).astype(np.float16)
    store = ExactStore(vectors)
    store.search(clustered(2, 16, seed=2), 5)
    held = vectors.nbytes + sum(
        value.nbytes for value in vars(store).values() if isinstance(value, np.ndarray) and value is not vectors
    )
    assert held <= PRESETS["exact"].memory_bytes(1_000, 16) <= held + 10_000
    assert PRESETS["exact"].memory_bytes(1_000_000, 512) == pytest.approx(2 * 512 * 1_000_000, rel=1e-4)


@pytest.mark.parametrize("damaged", ["x", 1.5, 0, None])
def test_invalid_manifest_parameters_are_rejected(damaged: object, tmp_path: Path) -> None:
    built = make(Case("ivf-flat", 700, 33), tmp_path)
    with pytest.raises(StoreUnavailable, match="index again"):
        open_store("faiss", tmp_path, built.vectors, {**built.params, "nprobe": damaged})


def test_graph_without_id_map_opens(tmp_path: Path) -> None:
    """Collections from before 2026-11-26 have such graphs."""
    built = make(Case("hnsw-sq8", 2_000, 33), tmp_path)
    mask = np.arange(2_000) % 400 == 7
    searches = [(10, None), (5, mask)]
    new = [built.open().search(built.queries, k, mask=allowed) for k, allowed in searches]
    index = faiss.read_index(str(tmp_path / INDEX_FILE))
    faiss.write_index(faiss.downcast_index(index.index), str(tmp_path / INDEX_FILE))
    for (k, allowed), before in zip(searches, new, strict=True):
        for old, found in zip(built.open().search(built.queries, k, mask=allowed), before, strict=True):
            np.testing.assert_array_equal(old.rows, found.rows)


def test_held_out_rows_are_added_to_the_graph(tmp_path: Path) -> None:
    case, held_out = Case("hnsw-sq8", 2_000, 33), np.array([0, 5, 7, 1_999])
    vectors = clustered(case.n, case.d, seed=1).astype(np.float16)
    kind, params = build_store(vectors, tmp_path, case.name, held_out=held_out)
    built = Built(case, tmp_path, vectors, vectors[held_out].astype(np.float32), dict(params))
    partial = open_store(kind, tmp_path, vectors, params, len(held_out))
    for overrides in ({}, {"candidates": 300}):
        assert not any(np.isin(found.rows, held_out).any() for found in partial.search(built.queries, 100, overrides))
    with pytest.raises(StoreUnavailable, match="1996 rows for 2000"):
        built.open()
    complete_store(vectors, tmp_path, held_out)
    for mask in (None, np.arange(case.n) % 400 < 8):
        truth = ExactStore(vectors).search(built.queries, 10, mask=mask)
        for found, expected_neighbors in zip(built.searched(10, mask), truth, strict=True):
            np.testing.assert_array_equal(found.rows, expected_neighbors.rows)


@pytest.mark.parametrize("name", ["ivf-pq4", "ivf-rabitq", "opq-ivf-pq4"])
def test_too_few_rows_for_codes_are_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=f"{name} needs 1,024 vectors.*ivf-flat"):
        make(Case(name, 1_000, 16), tmp_path)


def test_small_sizes_cause_no_faiss_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for n in (1, 2, 38, 39, 40, 100, 1_023, 1_024, 1_600, 10_000):
        build_store(clustered(n, 8, seed=1).astype(np.float16), tmp_path, "faiss")
    assert "WARNING" not in "".join(capfd.readouterr())
