"""Lookalike's store as the service uses it: built, tuned, searched and re-ranked by the product's functions.

Results of building and tuning are cached next to the index. q queries, n rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recall import K
from indexing.build.stores import build_store
from indexing.build.tuning import tune
from lookalike.approximate_search import approximate_search
from lookalike.stores.protocol import VectorStore
from lookalike.stores.registry import open_store
from lookalike.types import Float16, Float32, Int64

KIND = "faiss"


def build_once(folder: Path, vectors: Float16, preset: str = KIND) -> dict[str, Any]:
    """Return {"seconds", "value": parameters} of the store in `folder`, which is built unless it exists."""
    return cached_work(folder / "build.json", lambda: dict(build_store(vectors, folder, preset)[1]))


def tune_once(folder: Path, vectors: Float16, target: float, preset: str = KIND) -> dict[str, Any]:
    """Return {"seconds", "value": tuning report} of that store for a recall, tuned unless it was before."""

    def measure() -> dict[str, Any]:
        store = open_store(KIND, folder, vectors, build_once(folder, vectors, preset)["value"])
        return tune(store, vectors, target=target).to_dict()

    return cached_work(folder / f"tune-{target}.json", measure)


def open_tuned(folder: Path, vectors: Float16, target: float, preset: str = KIND) -> VectorStore:
    """Return the store with the tuned parameters as its defaults."""
    chosen = tune_once(folder, vectors, target, preset)["value"]["params"]
    return open_store(KIND, folder, vectors, {**build_once(folder, vectors, preset)["value"], **chosen})


def search(
    store: VectorStore, vectors: Float16, queries: Float32, params: Mapping[str, int], threads: int | None = None
) -> Int64:
    """Return (q, K) rows: candidates from the store, re-ranked by exact cosine; -1 where there are too few."""
    params = {**store.defaults, **params}
    rows = np.full((len(queries), K), -1, dtype=np.int64)
    for line, found in zip(rows, approximate_search(store, vectors, queries, K, params, threads=threads), strict=True):
        line[: len(found.rows)] = found.rows
    return rows


def cached_work(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return {"seconds", "value"} of work, which is done once and cached at `path`."""
    if not path.is_file():
        started = time.perf_counter()
        value = work()
        path.write_text(json.dumps({"seconds": time.perf_counter() - started, "value": value}), encoding="utf-8")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
