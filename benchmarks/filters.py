"""`python -m benchmarks.filters`: the time and the recall of single queries with a metadata filter.

Vectors come from `cliplike.py` of the shared data folder (LOOKALIKE_TEST_DATA). Queries run through the code that
serves them. n vectors, q queries, d width.
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
"""Column and share of the rows that pass: random rows, and those that lie farthest from the queries."""
_RECALL_QUERIES = 100
_ROUNDS = 15


def main() -> None:
    """Build a store over generated vectors, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filters", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=200_000, help="vectors to generate")
    parser.add_argument("--preset", default="faiss", help="which index, see docs/internals/vector-index.md")
    parser.add_argument("--queries", type=int, default=300, help="single queries to time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _run(Path(folder), args.n, args.queries, args.preset)


def _run(folder: Path, count: int, query_count: int, preset: str) -> None:
    generate(folder, count, query_count)
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
    options = [_options(column, share) for column, share in _CASES]
    measured = [
        _first_time_and_recall(rows, option, vectors, queries[:_RECALL_QUERIES], columns[column] < share)
        for (column, share), option in zip(_CASES, options, strict=True)
    ]
    durations: list[list[float]] = [[] for _ in _CASES]
    for part in np.array_split(queries, _ROUNDS):  # in turn, since the machine's speed drifts
        for times, option in zip(durations, options, strict=True):
            times += _query_ms(rows, option, part)
    for (column, share), (first, recall), times in zip(_CASES, measured, durations, strict=True):
        name = f"{share:.1%}, {'anywhere' if column == 'any' else 'the farthest'}"
        print(f"| {name} | {first:.2f} | {statistics.median(times):.2f} | {recall:.3f} |")


def _rank(values: Float32) -> np.ndarray:
    """Return the values' ranks in [0, 1), 0 for the smallest."""
    return np.argsort(np.argsort(values)) / len(values)


def _options(column: str, share: float) -> SearchOptions:
    where = parse_filter(json.dumps({"must": [{"field": column, "range": {"lt": share}}]})) if share < 1 else None
    return SearchOptions(K, where)


def _first_time_and_recall(
    rows: RowSearcher, options: SearchOptions, vectors: Float16, queries: Float32, passing: Bool
) -> tuple[float, float]:
    """Return the milliseconds of the filter's first evaluation, and recall."""
    stopwatch = Stopwatch()
    rows.search(queries[:1], options, stopwatch)
    return stopwatch.took_ms.get("filter", 0.0), _recall(rows, options, vectors, queries, passing)


def _query_ms(rows: RowSearcher, options: SearchOptions, queries: Float32) -> list[float]:
    """Return the milliseconds of each query alone."""
    times = []
    for i in range(len(queries)):
        started = time.perf_counter()
        rows.search(queries[i : i + 1], options, Stopwatch())
        times.append(1000 * (time.perf_counter() - started))
    return times


def _recall(rows: RowSearcher, options: SearchOptions, vectors: Float16, queries: Float32, passing: Bool) -> float:
    passing_rows = Neighbors(np.flatnonzero(passing), np.empty(0, np.float32))
    hits = 0
    for i, found in enumerate(rows.search(queries, options, Stopwatch())):
        exact = rerank(queries[i : i + 1], [passing_rows], vectors, K)[0]
        hits += len(set(found.rows.tolist()) & set(exact.rows.tolist()))
    return hits / (K * len(queries))


if __name__ == "__main__":
    main()
