"""Vectors read from FAISS indexes of other tools, in the order of their ids."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from indexing.importing.embeddings import Embeddings
from lookalike.errors import StoreUnavailable
from lookalike.types import Float32
from tests.unit_vectors import unit


def written(folder: Path, factory: str, count: int, width: int = 8) -> Float32:
    """Write `folder/image.index` and return its vectors in row order."""
    vectors = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
    index = faiss.index_factory(width, factory)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(folder / "image.index"))
    return vectors


@pytest.mark.parametrize("factory", ["SQfp16", "IVF4,SQfp16", "HNSW8_SQfp16", "L2norm,Flat", "L2norm,IVF4,Flat"])
def test_float16_or_finer_is_exact(tmp_path: Path, factory: str) -> None:
    vectors = written(tmp_path, factory, 300, 16)
    source = Embeddings(tmp_path / "image.index")
    assert not source.approximate
    read = np.concatenate([piece.vectors for piece in source])
    np.testing.assert_allclose(unit(read), unit(vectors), atol=5e-4)


@pytest.mark.parametrize("first", [0, 1000])
@pytest.mark.parametrize("kind", ["IndexIDMap", "IndexIDMap2"])
@pytest.mark.parametrize("inner", ["Flat", "IVF2,Flat"])
def test_id_map_vectors_come_in_id_order(tmp_path: Path, kind: str, inner: str, first: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    index = faiss.index_factory(8, inner)
    index.train(vectors)
    mapped = getattr(faiss, kind)(index)
    order = np.random.default_rng(1).permutation(100)
    mapped.add_with_ids(vectors[order], first + order)
    faiss.write_index(mapped, str(tmp_path / "image.index"))
    source = Embeddings(tmp_path / "image.index")
    assert not source.approximate
    pieces = list(source)
    np.testing.assert_array_equal(np.concatenate([piece.vectors for piece in pieces]), vectors)
    assert pieces[0].metadata.column("row").to_pylist() == list(range(first, first + 100))


@pytest.mark.parametrize("inner", ["IVF4,Flat", "IVF4,SQ8", "PCA8,IVF4,Flat"])
def test_inverted_file_with_custom_ids(tmp_path: Path, inner: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
    index = faiss.index_factory(8, inner)
    index.train(vectors)
    order = np.random.default_rng(1).permutation(200)
    index.add_with_ids(vectors[order], 7 * order + 5)
    faiss.extract_index_ivf(index).remove_ids(np.array([5, 19]))
    index.ntotal = 198
    faiss.write_index(index, str(tmp_path / "image.index"))
    pieces = list(Embeddings(tmp_path / "image.index"))
    there = np.setdiff1d(np.arange(200), [0, 2])
    np.testing.assert_allclose(np.concatenate([piece.vectors for piece in pieces]), vectors[there], atol=0.05)
    assert pieces[0].metadata.column("row").to_pylist() == (7 * there + 5).tolist()


@pytest.mark.parametrize(
    "factory",
    ["IVF4,PQ4x4fsr", "IVF4,PQ4x4fs", "OPQ4_8,IVF4,PQ4x4fsr", "IVF4,RQ2x4fsr_Nrq2x4", "IVF4,LSQ2x4fs_Nlsq2x4"],
)
def test_fast_scan_codes_in_lists_are_rejected(tmp_path: Path, factory: str) -> None:
    written(tmp_path, factory, 1000)
    with pytest.raises(StoreUnavailable, match="fast-scan codes"):
        Embeddings(tmp_path / "image.index")


@pytest.mark.parametrize("factory", ["IVF4,PQ4x4fsr,RFlat", "IVF4,PQ4,RFlat", "PQ4x4fs,RFlat"])
def test_refining_vectors_are_read(tmp_path: Path, factory: str) -> None:
    vectors = written(tmp_path, factory, 1000)
    source = Embeddings(tmp_path / "image.index")
    assert not source.approximate
    np.testing.assert_array_equal(np.concatenate([piece.vectors for piece in source]), vectors)
