"""Writes golden collections of generated images, and an index of each preset, with today's code.

    python -m tests.golden.make FORMAT_VERSION

What is committed is never written again: a collection of each format that was ever released stays in this folder, and
`test_golden.py` opens all of them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from indexing.build.stores import build_store
from indexing.job import IndexSettings, run_index
from lookalike.collection import VECTORS
from lookalike.manifest import FORMAT_VERSION
from lookalike.stores.presets import PRESETS
from lookalike.types import Float16
from tests.bad_images import encoded

HERE = Path(__file__).parent
COUNT = 300
STORES = ("exact", "faiss")
ROWS, WIDTH = 1_100, 32
"""Of the vectors under the presets' indexes: just enough for codes to be learned."""


def pixels(i: int) -> np.ndarray:
    """(8, 8, 3) uint8: two colours side by side, another pair for each i."""
    random = np.random.default_rng(i)
    return np.repeat(random.integers(0, 256, (1, 2, 3), np.uint8), 4, axis=1).repeat(8, axis=0)


def vectors() -> Float16:
    """(ROWS, WIDTH) float16 unit vectors in twenty clusters."""
    random = np.random.default_rng(0)
    x = random.standard_normal((20, WIDTH))[random.integers(0, 20, ROWS)] + 0.5 * random.standard_normal((ROWS, WIDTH))
    halves: Float16 = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
    return halves


def indexes(version: int) -> None:
    """Builds an index of each preset over one file of vectors."""
    root = _new(HERE / f"indexes-{version}")
    root.mkdir()
    np.save(root / VECTORS, vectors())
    for preset in PRESETS.values():
        if preset.has_index:
            folder = root / preset.name
            folder.mkdir()
            params = build_store(vectors(), folder, preset.name)[1]
            (folder / "params.json").write_text(json.dumps(params, indent=1) + "\n")


def _new(path: Path) -> Path:
    if path.exists():
        sys.exit(f"{path} is there already; what is golden is never written again")
    return path


def collections(version: int) -> None:
    """Builds one collection for each kind of store."""
    if version != FORMAT_VERSION:
        sys.exit(f"this code writes format {FORMAT_VERSION}, not {version}")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "images.parquet"
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
        pd.DataFrame([*rows, {"id": "bad", "image": b"no image"}]).to_parquet(table)
        for store in STORES:
            out = _new(HERE / f"format-{version}-{store}")
            run_index(IndexSettings((str(table),), Path(folder) / "golden", encoder="fake", store=store, replace=True))
            shutil.copytree(Path(folder) / "golden", out, ignore=shutil.ignore_patterns(".lock", ".work"))
            shutil.rmtree(Path(folder) / "golden")


if __name__ == "__main__":
    indexes(int(sys.argv[1]))
    collections(int(sys.argv[1]))
