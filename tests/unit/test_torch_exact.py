"""`torch-exact`: results equal the exact store's to the bit whatever the device rounds; memory; errors.

It runs on the CPU. What a GPU does otherwise (queries rounded to float16, products with another error) is put in the
place of the CPU's products, at its worst.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lookalike.errors import QueryError, StoreUnavailable
from lookalike.stores import torch_exact
from lookalike.stores.exact import ExactStore
from lookalike.stores.torch_exact import TorchStore, device_bytes
from lookalike.types import Bool, Float16, Float32

REPOSITORY = Path(__file__).resolve().parents[2]
GB = 10**9


def spread(n: int, d: int, seed: int = 1) -> Float16:
    """Unit vectors in all directions."""
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def crowded(n: int, d: int, seed: int, distinct: int) -> Float16:
    """A few vectors, each many times: half of the copies to the bit, half with one value moved to its neighbour."""
    random = np.random.default_rng(seed)
    rows = spread(distinct, d, seed)[random.integers(0, distinct, n)]
    moved = np.flatnonzero(random.random(n) < 0.5)
    columns = random.integers(0, d, len(moved))
    rows[moved, columns] = np.nextafter(rows[moved, columns], np.float16(1))
    return rows


def queries_of(q: int, d: int, seed: int = 2) -> Float32:
    return spread(q, d, seed).astype(np.float32)


def assert_same_as_exact(store: TorchStore, vectors: Float16, queries: Float32, k: int, mask: Bool | None) -> None:
    truth = ExactStore(vectors).search(queries, k, mask=mask)
    for found, expected in zip(store.search(queries, k, mask=mask), truth, strict=True):
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use blocks of a few rows, so that small stores have many blocks."""
    monkeypatch.setattr(torch_exact, "_MAX_BLOCK_ELEMENTS", {"cpu": 700})
    monkeypatch.setattr(torch_exact, "_UPLOAD_ROWS", 50)


class Coarse:
    """Products like a GPU's: queries rounded to float16, and sums with the largest allowed error."""

    def __init__(self) -> None:
        self._random = torch.Generator().manual_seed(0)

    def __call__(self, queries: Tensor, block: Tensor) -> Tensor:
        assert queries.dtype == torch.float16
        products = queries.float() @ block.float().T
        noise = 2 * torch.rand(products.shape, generator=self._random) - 1
        return products + noise * 0.7 * queries.shape[1] * torch_exact._ROUNDING_ERROR  # the rest: for the final score


@pytest.fixture
def gpu_like(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make stores treat the CPU like a GPU that multiplies float16 coarsely."""
    opened = TorchStore._upload

    def upload(store: TorchStore) -> None:
        opened(store)
        store._query_type = np.float16

    monkeypatch.setattr(TorchStore, "_upload", upload)
    monkeypatch.setattr(torch_exact, "_products", Coarse())


@pytest.fixture(params=["cpu", "gpu_like"])
def device(request: pytest.FixtureRequest) -> None:
    """Run on the CPU as it is, and on a simulated GPU."""
    if request.param == "gpu_like":
        request.getfixturevalue("gpu_like")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(1, 300),
    distinct=st.sampled_from([1, 2, 7, 300]),
    k=st.sampled_from([1, 3, 40, 1_000]),
    share=st.sampled_from([None, 0.0, 0.05, 0.5, 1.0]),
)
@pytest.mark.usefixtures("small_blocks", "device")
def test_results_equal_the_exact_store_to_the_bit(
    seed: int, n: int, distinct: int, k: int, share: float | None
) -> None:
    vectors = crowded(n, 24, seed, distinct)
    mask = None if share is None else np.random.default_rng(seed).random(n) < share
    queries = np.concatenate([queries_of(3, 24, seed + 1), vectors[:1].astype(np.float32)])
    assert_same_as_exact(TorchStore(vectors, "cpu"), vectors, queries, k, mask)


@pytest.mark.usefixtures("device")
def test_ties_beyond_the_proposed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more copies than the device proposes, the results do not depend on which ones it proposes."""
    vectors = spread(2_000, 32)
    copies = np.sort(np.random.default_rng(0).choice(2_000, 700, replace=False))
    vectors[copies] = vectors[0]
    store, query = TorchStore(vectors, "cpu"), vectors[:1].astype(np.float32)
    widened = counted(monkeypatch)
    found = store.search(query, 5)[0]
    assert found.rows.tolist() == np.union1d(copies, [0])[:5].tolist()
    assert len(set(found.scores.tolist())) == 1
    assert len(widened) == 1
    assert_same_as_exact(store, vectors, np.concatenate([query, queries_of(4, 32)]), 600, None)


def test_rounded_query_finds_the_true_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float16 the query's first two values lose half a step each and its third gains one: row 40 falls behind."""
    step = 2.0**-12  # of float16 numbers between 0.25 and 0.5
    query = 0.4375 + step * np.array([[0.49, 0.49, 0.51, 0.43, 0.0]])
    query[0, 4] = np.sqrt(1 - (query[0, :4] ** 2).sum())
    vectors = np.array([[0, 0, 1, 1, 0]] * 40 + [[1, 1, 0, 0, 0]], np.float16)  # more wrong rows than are proposed
    store = TorchStore(vectors, "cpu")
    monkeypatch.setattr(store, "_query_type", np.float16)
    monkeypatch.setattr(torch_exact, "_products", lambda queries, block: queries.float() @ block.float().T)
    assert store.search(query.astype(np.float32), 1)[0].rows.tolist() == [40]


def test_largest_rounding_errors_of_both_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 40 is best by half of the allowed error; the device makes it worse by 0.9 of it and the others better."""
    error = (2 + 8) * torch_exact._ROUNDING_ERROR
    query = np.float32([[np.sqrt(0.5) + error / 4, np.sqrt(0.5) - error / 4]])
    vectors = np.array([[0, 1]] * 40 + [[1, 0]], np.float16)
    off = torch.tensor([0.9 * error] * 40 + [-0.9 * error])
    monkeypatch.setattr(torch_exact, "_products", lambda queries, block: queries @ block.float().T + off)
    assert TorchStore(vectors, "cpu").search(query, 1)[0].rows.tolist() == [40]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the thresholds of second passes."""
    thresholds: list[float] = []
    real = TorchStore._all_above

    def spy(store: TorchStore, query: Tensor, threshold: float, excluded: Tensor | None) -> object:
        thresholds.append(threshold)
        return real(store, query, threshold, excluded)

    monkeypatch.setattr(TorchStore, "_all_above", spy)
    return thresholds


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("k", [1, 10, 100])
def test_no_second_pass_for_well_separated_scores(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = spread(3_000, 64)
    store, widened = TorchStore(vectors, "cpu"), counted(monkeypatch)
    assert_same_as_exact(store, vectors, queries_of(20, 64), k, None)
    assert widened == []


@pytest.mark.usefixtures("device")
def test_no_second_pass_if_all_rows_were_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = crowded(30, 16, seed=3, distinct=1)
    store, widened = TorchStore(vectors, "cpu"), counted(monkeypatch)
    assert_same_as_exact(store, vectors, queries_of(3, 16), 2, None)
    assert widened == []


@pytest.mark.usefixtures("small_blocks", "device")
def test_vectors_of_any_norm() -> None:
    vectors = spread(200, 16) * np.random.default_rng(0).choice([0.01, 0.5, 3.0, 100.0], (200, 1))
    vectors = vectors.astype(np.float16)
    vectors[[3, 90]] = 0
    queries = 7 * queries_of(5, 16)
    assert_same_as_exact(TorchStore(vectors, "cpu"), vectors, queries, 200, None)
    assert_same_as_exact(TorchStore(vectors, "cpu"), vectors, queries, 4, np.arange(200) % 3 == 0)


def test_many_queries_are_split_into_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_exact, "_MAX_QUERIES_PER_BATCH", 4)
    vectors = spread(300, 16)
    assert_same_as_exact(TorchStore(vectors, "cpu"), vectors, queries_of(11, 16), 3, None)


@pytest.mark.usefixtures("small_blocks")
def test_intermediate_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = torch_exact._products

    def spy(queries: Tensor, block: Tensor) -> Tensor:
        sizes.extend([block.numel(), len(queries) * len(block)])
        return real(queries, block)

    monkeypatch.setattr(torch_exact, "_products", spy)
    TorchStore(spread(400, 16), "cpu").search(queries_of(60, 16), 5)
    assert 350 < max(sizes) <= 700


def test_read_only_vectors_and_masks() -> None:
    vectors, mask = spread(100, 16), np.arange(100) < 50
    vectors.flags.writeable = mask.flags.writeable = False
    assert_same_as_exact(TorchStore(vectors, "cpu"), vectors, queries_of(2, 16), 3, mask)


def test_zero_and_nonfinite_queries_are_rejected() -> None:
    store = TorchStore(spread(10, 4), "cpu")
    for bad in (0.0, np.nan, np.inf):
        with pytest.raises(QueryError, match="query 1"):
            store.search(np.stack([np.ones(4), np.full(4, bad)]).astype(np.float32), 3)


def test_nonfinite_vector_is_rejected() -> None:
    vectors = spread(100, 4)
    vectors[70, 2] = np.nan
    with pytest.raises(StoreUnavailable, match="not finite"):
        TorchStore(vectors, "cpu")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "out of memory"),
        (RuntimeError("CUDA error: an illegal address\nand much advice"), "an illegal address;"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_device_errors_become_store_unavailable(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Tensor:
        raise error

    vectors = spread(10, 4)
    store = TorchStore(vectors, "cpu")
    monkeypatch.setattr(torch_exact, "_products", refuse)
    with pytest.raises(StoreUnavailable, match=rf"search failed.*{message}.*--store faiss or exact") as raised:
        store.search(queries_of(1, 4), 3)
    assert "\n" not in str(raised.value)
    with pytest.raises(StoreUnavailable, match=message):  # the first query, at opening
        TorchStore(vectors, "cpu")
    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(StoreUnavailable, match=rf"to the device.*{message}.*--store faiss or exact"):
        TorchStore(vectors, "cpu")


def test_missing_cuda_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StoreUnavailable, match="no CUDA device"):
        TorchStore(spread(10, 4), "cuda")
    assert TorchStore(spread(10, 4)).device == "cpu"


def test_memory_is_checked_before_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (14 * GB, 16 * GB))
    torch_exact._require_memory(10**7, 512)  # 10.3 of the 14 GB; 3.2 stay in reserve
    with pytest.raises(StoreUnavailable, match=r"11,000,000 .* 11\.31 GB .* 14\.00 GB are free and 3\.20 GB .*exact"):
        torch_exact._require_memory(11 * 10**6, 512)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 16 * GB))
    monkeypatch.setattr(torch, "empty", None)
    with pytest.raises(StoreUnavailable, match="GB of the GPU's memory"):
        TorchStore(spread(10, 4), "cuda")


def test_memory_estimate_is_exact() -> None:
    store = TorchStore(spread(123, 40), "cpu")
    assert device_bytes(123, 40) == store._vectors.nbytes + store._inverse_norms.nbytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("distinct", [5, 20_000])
def test_on_cuda_itself(distinct: int) -> None:
    vectors = crowded(20_000, 512, seed=4, distinct=distinct)
    store, queries = TorchStore(vectors, "cuda"), queries_of(40, 512)
    for k, mask in ((1, None), (10, np.arange(20_000) % 7 == 0), (1_000, None)):
        assert_same_as_exact(store, vectors, queries, k, mask)


def test_torch_is_imported_only_on_opening() -> None:
    code = """
import sys
from pathlib import Path
import numpy as np
from lookalike.stores.registry import create_builder, open_store, resolve_kind
vectors = np.eye(4, dtype=np.float16)
create_builder(resolve_kind("torch-exact", 4), 4, 4).finish(Path())
open_store("exact", Path(), vectors)
assert "torch" not in sys.modules
assert open_store("torch-exact", Path(), vectors, {"device": "cpu"}).kind == "torch-exact"
assert "torch" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
