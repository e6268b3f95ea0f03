"""Writes a golden collection of generated pictures with today's code; never over one that is committed.

    python -m tests.golden.make FORMAT_VERSION

A collection of each format that was ever released stays in this folder, and `test_golden.py` opens all of them.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from indexing.job import IndexSettings, run_index
from retrieval.manifest import FORMAT_VERSION
from tests.bad_images import encoded

HERE = Path(__file__).parent
COUNT = 300
STORES = ("exact", "faiss")


def pixels(i: int) -> np.ndarray:
    """(8, 8, 3) uint8: two colours side by side, another pair for each i."""
    random = np.random.default_rng(i)
    return np.repeat(random.integers(0, 256, (1, 2, 3), np.uint8), 4, axis=1).repeat(8, axis=0)


def main(version: int) -> None:
    """Builds one collection for each kind of store."""
    if version != FORMAT_VERSION:
        sys.exit(f"this code writes format {FORMAT_VERSION}, not {version}")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pictures.parquet"
        rows = [
            {
                "id": f"p{i:03}",
                "image": encoded(Image.fromarray(pixels(i)), "PNG"),
                "caption": f"picture {i}",
                "price": i / 4,
                "tags": ["even"] if i % 2 == 0 else [],
            }
            for i in range(COUNT)
        ]
        pd.DataFrame([*rows, {"id": "bad", "image": b"no picture"}]).to_parquet(table)
        for store in STORES:
            out = HERE / f"format-{version}-{store}"
            if out.exists():
                sys.exit(f"{out} is there already; a golden collection is never written again")
            run_index(IndexSettings((str(table),), Path(folder) / "golden", encoder="fake", store=store, replace=True))
            shutil.copytree(Path(folder) / "golden", out, ignore=shutil.ignore_patterns(".lock", ".work"))
            shutil.rmtree(Path(folder) / "golden")


if __name__ == "__main__":
    main(int(sys.argv[1]))
