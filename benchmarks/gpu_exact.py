"""`python -m benchmarks.gpu_exact`: exact search on a device, relative to the limit of its memory bandwidth.

A search must read every vector once a batch, so no device processes more than (bandwidth / bytes of all vectors)
batches a second. The bandwidth is measured in the same run, by copying within the device's memory: bytes read and
written, over the time. Searches are timed as they are served: upload of the queries, product, top-k and re-ranking on
the host. The first results are compared with the exact store's, bit by bit.

Vectors are random directions (2 d bytes of main memory a vector); speed depends only on their number. Without a CUDA
device it runs on the CPU; every line names the device. A share of the limit above one means that vectors stayed in a
cache.

Dimension letters: n vectors, q queries, d width.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.encoders import machine
from lookalike.stores.exact import ExactStore
from lookalike.stores.torch_exact import TorchStore, device_bytes
from lookalike.types import Float16, Float32

_CHUNK_ROWS = 50_000
_COPY_BYTES = 1 << 28  # more than any cache holds
_COPIES = 8
_COMPARED_QUERIES = 4  # the exact store takes a second for a million vectors
_MIN_ROUND_QUERIES = 64  # in as many batches as that takes


@dataclass(frozen=True)
class Line:
    """The figures of one batch size.

    Attributes:
        device: `cuda` or `cpu`, and its name.
        n: vectors.
        d: their width.
        k: neighbors of a query.
        batch: queries of one call.
        batch_ms: median time of a call, milliseconds.
        queries_per_second: batch / batch_ms.
        read_mb: bytes of all vectors on the device, MB; a call reads at least these.
        copy_gb_s: measured bandwidth, GB/s.
        limit_queries_per_second: batch * copy_gb_s / read_mb.
        share_of_limit: queries_per_second / limit_queries_per_second.
        same_as_exact: whether the compared results equal those of the exact store.
    """

    device: str
    n: int
    d: int
    k: int
    batch: int
    batch_ms: float
    queries_per_second: float
    read_mb: float
    copy_gb_s: float
    limit_queries_per_second: float
    share_of_limit: float
    same_as_exact: bool


def main() -> None:
    """Parse the arguments, measure, print."""
    args = _arguments()
    vectors = _directions(args.n, args.dim, seed=0)
    store = TorchStore(vectors, None if args.device == "auto" else args.device)
    queries = _directions(max(_MIN_ROUND_QUERIES, *args.batch), args.dim, seed=1).astype(np.float32)
    same = _same(store, ExactStore(vectors), queries[:_COMPARED_QUERIES], args.k)
    bandwidth = _copy_bandwidth(store.device, args.rounds)
    lines = (_line(store, queries, batch, args, bandwidth, same) for batch in args.batch)
    if args.json:
        _print_json(lines)
    else:
        _print_table(lines, store.device)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_exact", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=1_000_000, help="vectors to generate")
    parser.add_argument("--dim", type=int, default=512, help="their width")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64, 1024], help="queries of one call")
    parser.add_argument("--k", type=int, default=10, help="neighbors of a query")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: CUDA where there is one"
    )
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; medians are reported")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    return parser.parse_args()


def _directions(count: int, dim: int, seed: int) -> Float16:
    """Return (count, dim) float16 unit vectors."""
    random = np.random.default_rng(seed)
    vectors = np.empty((count, dim), dtype=np.float16)
    for start in range(0, count, _CHUNK_ROWS):
        chunk = random.standard_normal((min(_CHUNK_ROWS, count - start), dim), dtype=np.float32)
        vectors[start : start + _CHUNK_ROWS] = chunk / np.linalg.norm(chunk, axis=1, keepdims=True)
    return vectors


def _same(store: TorchStore, exact: ExactStore, queries: Float32, k: int) -> bool:
    pairs = zip(store.search(queries, k), exact.search(queries, k), strict=True)
    return all(np.array_equal(a.rows, b.rows) and np.array_equal(a.scores, b.scores) for a, b in pairs)


def _copy_bandwidth(device: str, rounds: int) -> float:
    """Return the bytes a second that copying reads and writes together."""
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        for _ in range(_COPIES):
            target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()

    copy()
    return 2 * _COPY_BYTES * _COPIES / statistics.median(_seconds(copy) for _ in range(rounds))


def _line(
    store: TorchStore, queries: Float32, batch: int, args: argparse.Namespace, bandwidth: float, same: bool
) -> Line:
    starts = range(0, max(1, _MIN_ROUND_QUERIES // batch) * batch, batch)
    batches = [queries[start : start + batch] for start in starts]
    store.search(batches[0], args.k)  # warm
    seconds = statistics.median(
        _seconds(partial(store.search, part, args.k)) for _ in range(args.rounds) for part in batches
    )
    read = device_bytes(store.count, store.dim)
    limit = batch * bandwidth / read
    return Line(
        device=_device_name(store.device),
        n=store.count,
        d=store.dim,
        k=args.k,
        batch=batch,
        batch_ms=round(1000 * seconds, 3),
        queries_per_second=round(batch / seconds, 1),
        read_mb=round(read / 1e6, 1),
        copy_gb_s=round(bandwidth / 1e9, 1),
        limit_queries_per_second=round(limit, 1),
        share_of_limit=round(batch / seconds / limit, 3),
        same_as_exact=same,
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _device_name(device: str) -> str:
    if device == "cuda":
        return f"cuda, {torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"cpu, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _print_json(lines: Iterator[Line]) -> None:
    host = machine()
    for line in lines:
        print(json.dumps({"machine": host, **asdict(line)}), flush=True)


def _print_table(lines: Iterator[Line], device: str) -> None:
    print(f"{machine()}\n{_device_name(device)}", end="\n\n")
    print("| n | d | k | batch | ms | queries/s | read, MB | copy, GB/s | limit, queries/s | share | as exact |")
    print("| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |")
    for line in lines:
        print("| " + " | ".join(str(value) for value in list(asdict(line).values())[1:]) + " |", flush=True)


if __name__ == "__main__":
    main()
