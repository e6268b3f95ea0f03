"""`python -m benchmarks.filters`: what a metadata filter costs a single query, and what recall it leaves.

Vectors come from `cliplike.py` of the shared data folder (LOOKALIKE_TEST_DATA); everything goes through the pieces that
serve a query. n vectors, q queries, d width.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.vectors import generate, load
from indexing.build.budget import IndexBudget
from indexing.build.index_selection import build_within_budget
from lookalike.filters import parse_filter
from lookalike.metadata import Metadata, write_metadata
from lookalike.rerank import rerank
from lookalike.row_search import RowSearcher, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.stores.registry import open_store
from lookalike.types import Bool, Float16, Float32, Neighbors

K = 10
_CASES = [("any", share) for share in (1.0, 0.5, 0.1, 0.05, 0.02, 0.011, 0.005)] + [("far", 0.1), ("far", 0.03)]
"""Rows that pass, drawn by lot, and those that lie farthest from what is asked for."""
_JUDGED = 100
_ROUNDS = 15


def main() -> None:
    """Builds a store over generated vectors and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filters", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=200_000, help="vectors to generate")
    parser.add_argument("--preset", default="faiss", help="which index, see docs/index.md")
    parser.add_argument("--queries", type=int, default=300, help="single queries to time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _run(Path(folder), args.n, args.queries, args.preset)


def _run(folder: Path, count: int, asked: int, preset: str) -> None:
    generate(folder, count, asked)
    originals, queries = load(folder)
    vectors = originals.astype(np.float16)
    columns = {
        "any": np.random.default_rng(1).random(count),
        "far": _rank(vectors.astype(np.float32) @ queries.mean(axis=0)),
    }
    table = pa.table({"id": [str(i) for i in range(count)], **columns})
    write_metadata(folder, table.schema, [table])
    built = build_within_budget(vectors, folder, preset, IndexBudget())
    rows = RowSearcher(open_store(built.kind, folder, vectors, built.params), vectors, Metadata(folder))
    print(f"{built.params['factory']}, {built.report['params']}\n")
    print("| rows that pass | filter, first time, ms | p50, ms | recall at 10 |")
    print("| ---: | ---: | ---: | ---: |")
    wishes = [_wish(column, share) for column, share in _CASES]
    told = [
        _told(rows, wish, vectors, queries[:_JUDGED], columns[column] < share)
        for (column, share), wish in zip(_CASES, wishes, strict=True)
    ]
    took: list[list[float]] = [[] for _ in _CASES]
    for some in np.array_split(queries, _ROUNDS):  # in turn, since the machine's speed drifts
        for times, wish in zip(took, wishes, strict=True):
            times += _times(rows, wish, some)
    for (column, share), (first, recall), times in zip(_CASES, told, took, strict=True):
        name = f"{share:.1%}, {'anywhere' if column == 'any' else 'the farthest'}"
        print(f"| {name} | {first:.2f} | {statistics.median(times):.2f} | {recall:.3f} |")


def _rank(values: Float32) -> np.ndarray:
    """In [0, 1), the smallest first."""
    return np.argsort(np.argsort(values)) / len(values)


def _wish(column: str, share: float) -> SearchOptions:
    wanted = parse_filter(json.dumps({"must": [{"field": column, "range": {"lt": share}}]})) if share < 1 else None
    return SearchOptions(K, wanted)


def _told(
    rows: RowSearcher, wish: SearchOptions, vectors: Float16, queries: Float32, passing: Bool
) -> tuple[float, float]:
    """Milliseconds of the filter's first time, and recall."""
    watch = Stopwatch()
    rows.search(queries[:1], wish, watch)
    return watch.took_ms.get("filter", 0.0), _recall(rows, wish, vectors, queries, passing)


def _times(rows: RowSearcher, wish: SearchOptions, queries: Float32) -> list[float]:
    """Milliseconds of each query alone."""
    took = []
    for i in range(len(queries)):
        begun = time.perf_counter()
        rows.search(queries[i : i + 1], wish, Stopwatch())
        took.append(1000 * (time.perf_counter() - begun))
    return took


def _recall(rows: RowSearcher, options: SearchOptions, vectors: Float16, queries: Float32, passing: Bool) -> float:
    everything = Neighbors(np.flatnonzero(passing), np.empty(0, np.float32))
    shared = 0
    for i, found in enumerate(rows.search(queries, options, Stopwatch())):
        true = rerank(queries[i : i + 1], [everything], vectors, K)[0]
        shared += len(set(found.rows.tolist()) & set(true.rows.tolist()))
    return shared / (K * len(queries))


if __name__ == "__main__":
    main()
