"""Lookalike's own store as the service uses it: built, tuned, searched and re-ranked by the product's own functions.

What was built and tuned is remembered beside the index. q queries, n rows.
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


def built(folder: Path, halves: Float16, preset: str = KIND) -> dict[str, Any]:
    """{"seconds", "value": parameters} of the store in `folder`, built unless it is there."""
    return remembered(folder / "build.json", lambda: dict(build_store(halves, folder, preset)[1]))


def tuned(folder: Path, halves: Float16, target: float, preset: str = KIND) -> dict[str, Any]:
    """{"seconds", "value": tuning report} of that store for a recall, measured unless that was done."""

    def measure() -> dict[str, Any]:
        store = open_store(KIND, folder, halves, built(folder, halves, preset)["value"])
        return tune(store, halves, target=target).to_dict()

    return remembered(folder / f"tune-{target}.json", measure)


def open_tuned(folder: Path, halves: Float16, target: float, preset: str = KIND) -> VectorStore:
    """The store with the parameters that tuning chose as its defaults."""
    chosen = tuned(folder, halves, target, preset)["value"]["params"]
    return open_store(KIND, folder, halves, {**built(folder, halves, preset)["value"], **chosen})


def answer(
    store: VectorStore, halves: Float16, queries: Float32, params: Mapping[str, int], threads: int | None = None
) -> Int64:
    """(q, K) rows: candidates from the store, then exact cosines; -1 where there were too few."""
    wanted = {**store.defaults, **params}
    rows = np.full((len(queries), K), -1, dtype=np.int64)
    for line, found in zip(rows, approximate_search(store, halves, queries, K, wanted, threads=threads), strict=True):
        line[: len(found.rows)] = found.rows
    return rows


def remembered(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """{"seconds", "value"} of work that is done once and noted at `path`."""
    if not path.is_file():
        started = time.perf_counter()
        value = work()
        path.write_text(json.dumps({"seconds": time.perf_counter() - started, "value": value}), encoding="utf-8")
    note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return note
