"""`python -m benchmarks.milvus URI`: FAISS and a Milvus server over the same vectors: build, recall, time of a query.

Vectors come from `cliplike.py` of the shared data folder (LOOKALIKE_TEST_DATA). Both are tuned to a recall of 0.95, and
measured with queries that neither holds. `.milvus/bin/milvus-server --data FOLDER` starts a server. n vectors.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.vectors import FOLDER, float16_copy, generate, load
from indexing.build.tuned_store import build_and_tune
from lookalike.approximate_search import approximate_search
from lookalike.stores.exact import ExactStore
from lookalike.stores.registry import discard_store, open_store
from lookalike.types import Float16, Float32

_K = 10
_RECALL_QUERIES, _TIMED_QUERIES = 500, 200


def main() -> None:
    """Build both, measure, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.milvus", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("uri", help="address of the server, such as http://127.0.0.1:19530")
    parser.add_argument("--n", type=int, default=100_000, help="vectors to generate")
    parser.add_argument("--presets", default="ivf-pq4,ivf-flat", help="kinds of index")
    args = parser.parse_args()
    folder = FOLDER / str(args.n)
    generate(folder, args.n)
    originals, queries = load(folder)
    vectors = float16_copy(folder, originals)
    truth = [set(each.rows.tolist()) for each in ExactStore(vectors).search(queries[:_RECALL_QUERIES], _K)]
    print("| store | build, s | recall at 10 | one query, ms | queries/s in batches |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    for preset in args.presets.split(","):
        for store in (preset, f"milvus:{args.uri}/benchmark?index={preset}"):
            _measure(store, preset, vectors, queries, truth)


def _measure(store: str, preset: str, vectors: Float16, queries: Float32, truth: list[set[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tuned = build_and_tune(vectors, Path(folder), store, 0.95, None)
        opened = open_store(tuned.kind, Path(folder), vectors, tuned.params)
        params = tuned.report.params
        begun = time.perf_counter()
        found = approximate_search(opened, vectors, queries[:_RECALL_QUERIES], _K, params)
        rate = _RECALL_QUERIES / (time.perf_counter() - begun)
        recall = np.mean([len(true & set(each.rows.tolist())) / _K for true, each in zip(truth, found, strict=True)])
        times = []
        for i in range(_TIMED_QUERIES):
            begun = time.perf_counter()
            approximate_search(opened, vectors, queries[i : i + 1], _K, params)
            times.append(time.perf_counter() - begun)
        discard_store(tuned.kind, tuned.params)
    single = 1e3 * statistics.median(times)
    print(
        f"| {tuned.kind} `{preset}` {dict(params)} | {tuned.build_seconds:.0f} | {recall:.3f} | {single:.2f} | "
        f"{rate:,.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
