"""Generated CLIP-like vectors on disk, one folder for each size, for the benchmarks of the index.

`X.npy` (n, d) and `q.npy` (q, d) are float32 unit vectors from `cliplike.py` of the shared data folder
(LOOKALIKE_TEST_DATA); the queries are not among the vectors. `vectors.npy` holds the vectors as float16, as a
collection does. All files are written once and memory-mapped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from lookalike.types import Float16, Float32

FOLDER = Path(".lookalike/benchmarks/index")
"""Default folder of vectors and indexes between runs."""
VECTORS_FILE, QUERIES_FILE, FLOAT16_FILE = "X.npy", "q.npy", "vectors.npy"
CHUNK_ROWS = 50_000
_DEFAULT_QUERIES = 2000


def generate(folder: Path, count: int, queries: int = _DEFAULT_QUERIES) -> None:
    """Write `X.npy` and `q.npy` unless they exist; the generator holds the vectors twice, 4 d bytes each."""
    if (folder / QUERIES_FILE).is_file():  # written last
        return
    shared = Path(os.environ.get("LOOKALIKE_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    script = shared / "cliplike.py"
    if not script.is_file():
        sys.exit(f"{script} is missing: set LOOKALIKE_TEST_DATA to the shared data folder")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, str(script), str(count), str(queries), str(folder)], check=True)


def load(folder: Path) -> tuple[Float32, Float32]:
    """Return (n, d) vectors, memory-mapped, and (q, d) queries."""
    return np.load(folder / VECTORS_FILE, mmap_mode="r"), np.load(folder / QUERIES_FILE)


def float16_copy(folder: Path, vectors: Float32) -> Float16:
    """Return the vectors as float16, memory-mapped; `vectors.npy` is written unless it exists."""
    path = folder / FLOAT16_FILE
    if not path.is_file():
        partial = path.with_suffix(".partial")
        out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=vectors.shape)
        for start in range(0, len(vectors), CHUNK_ROWS):
            out[start : start + CHUNK_ROWS] = vectors[start : start + CHUNK_ROWS]
        out.flush()
        partial.rename(path)
    mapped: Float16 = np.load(path, mmap_mode="r")
    return mapped
