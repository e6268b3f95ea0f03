"""Generated CLIP-like vectors on disk, one folder a size: what the benchmarks of the index measure on.

`X.npy` (n, d) and `q.npy` (q, d) are float32 unit vectors from `cliplike.py` of the shared data folder
(LOOKALIKE_TEST_DATA); the queries are not among the vectors. `vectors.npy` holds the same as float16, as a collection
does. All are made once and memory-mapped. It knows nothing of indexes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from lookalike.types import Float16, Float32

FOLDER = Path(".lookalike/benchmarks/index")
"""Where benchmarks keep vectors and indexes between runs, unless told otherwise."""
VECTORS, QUERIES, HALVES = "X.npy", "q.npy", "vectors.npy"
CHUNK = 50_000
_QUERY_COUNT = 2000


def generate(folder: Path, count: int, queries: int = _QUERY_COUNT) -> None:
    """Writes `X.npy` and `q.npy` unless they are there; the generator holds the vectors twice, 4 d bytes each."""
    if (folder / QUERIES).is_file():  # written last
        return
    shared = Path(os.environ.get("LOOKALIKE_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    script = shared / "cliplike.py"
    if not script.is_file():
        sys.exit(f"{script} is missing: set LOOKALIKE_TEST_DATA to the shared data folder")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, str(script), str(count), str(queries), str(folder)], check=True)


def load(folder: Path) -> tuple[Float32, Float32]:
    """(n, d) vectors, memory-mapped, and (q, d) queries."""
    return np.load(folder / VECTORS, mmap_mode="r"), np.load(folder / QUERIES)


def halves(folder: Path, vectors: Float32) -> Float16:
    """The collection's `vectors.npy`, memory-mapped; written unless it is there."""
    path = folder / HALVES
    if not path.is_file():
        partial = path.with_suffix(".partial")
        out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=vectors.shape)
        for start in range(0, len(vectors), CHUNK):
            out[start : start + CHUNK] = vectors[start : start + CHUNK]
        out.flush()
        partial.rename(path)
    mapped: Float16 = np.load(path, mmap_mode="r")
    return mapped
