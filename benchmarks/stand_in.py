"""`python -m benchmarks.stand_in OUT`: 500,000 CLIP-like vectors, and a ViT-B/32 whose texts are mapped near them.

It replaces published weights where they can't be downloaded. The texts of a random tower would be far from all images,
which no index is built for. So the checkpoint has ViT-B/32's architecture, random weights, and a text projection fitted
to the vectors by least squares: its results mean nothing, but its speed is realistic. OUT gets `vit.pt` and `emb/` in
clip-retrieval's layout, for both services of `benchmarks.service --peer`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.vectors import generate, load
from lookalike.types import Float32

_MODEL = "ViT-B-32"
_WORDS = ("red", "blue", "dog", "cat", "car", "street", "beach", "snow", "child", "woman", "man", "two", "three")
_SHARD_ROWS, _TEXT_COUNT, _BATCH_SIZE = 100_000, 4_000, 64

_NEXT = """Next:
  lookalike import {out}/emb --out {out}/collection --encoder open_clip:{model}/{out}/vit.pt --unchecked
  clip-retrieval index --embeddings_folder {out}/emb --index_folder {out}/peer        # in an environment of its own
  echo '{{"gallery": "{out}/peer"}}' > {out}/indices.json
  clip-retrieval back --clip_model open_clip:{model}/{out}/vit.pt --use_jit False --port 1234 \\
    --enable_mclip_option False --provide_aesthetic_embeddings False --provide_safety_model False \\
    --provide_violence_detector False --indices-paths {out}/indices.json
  python -m benchmarks.service {out}/collection --peer http://127.0.0.1:1234"""


def checkpoint(vectors: Float32, path: Path) -> None:
    """Save ViT-B/32 with random weights that maps the texts of `benchmarks.service` near the vectors (n, 512)."""
    torch.manual_seed(0)
    model = open_clip.create_model(_MODEL).eval()
    projection = model.text_projection
    with torch.inference_mode():
        projection.copy_(torch.eye(len(projection)))
        tokenize = open_clip.get_tokenizer(_MODEL)
        features = torch.cat([model.encode_text(tokenize(batch)) for batch in _batches(_texts())])
        rows = np.random.default_rng(0).integers(len(vectors), size=len(features))
        targets = torch.from_numpy(np.asarray(vectors[np.sort(rows)]))
        projection.copy_(torch.linalg.lstsq(features, targets).solution)
    torch.save(model.state_dict(), path)


def _texts() -> list[str]:
    """Return the texts of the load script of `benchmarks.service`."""
    first, second = (np.arange(1, _TEXT_COUNT + 1) // step % len(_WORDS) for step in (1, len(_WORDS)))
    return [f"a {_WORDS[i]} and a {_WORDS[j]} {n}" for n, (i, j) in enumerate(zip(first, second, strict=True), 1)]


def _batches(texts: list[str]) -> list[list[str]]:
    return [texts[start : start + _BATCH_SIZE] for start in range(0, len(texts), _BATCH_SIZE)]


def shards(vectors: Float32, folder: Path) -> None:
    """Write `img_emb/img_emb_0.npy`, ... and `metadata/metadata_0.parquet`, ..., as clip-retrieval does."""
    for part in ("img_emb", "metadata"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(vectors), _SHARD_ROWS)):
        rows = vectors[start : start + _SHARD_ROWS]
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", rows.astype(np.float16))
        names = [f"{row:08}.jpg" for row in range(start, start + len(rows))]
        table = pa.table({"image_path": names, "caption": [f"image {name}" for name in names]})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, write, print the next commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=500_000)
    options = parser.parse_args(arguments)
    out: Path = options.out.resolve()
    generate(out, options.count)
    vectors, _ = load(out)
    checkpoint(vectors, out / "vit.pt")
    shards(vectors, out / "emb")
    print(_NEXT.format(out=out, model=_MODEL))


if __name__ == "__main__":
    main()
