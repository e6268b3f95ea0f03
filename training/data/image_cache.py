"""A cache on disk of the decoded training images, uint8 (3, R, R).

Each image is decoded once. Images that can't be decoded are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn

from evaluation.datasets import Example
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import LookalikeError, SourceError
from lookalike.images import decode
from lookalike.types import Int64, UInt8

PIXELS_FILE, ROWS_FILE = "pictures.npy", "pictures.json"
_CHUNK_IMAGES, _TASK_IMAGES = 512, 32
"""Images decoded before the next are started, and images of one task: tasks of one small image wait for the GIL."""
_FLUSH_IMAGES = 8 * _CHUNK_IMAGES
"""Images after which the file is flushed to disk."""
_SAMPLE_BATCH = 16


def cache_images(
    examples: Sequence[Example], preprocessing: Preprocessing, folder: Path, progress: Callable[[int], object]
) -> tuple[UInt8, Int64]:
    """Decode every example, or read what an earlier call with the same examples wrote.

    Args:
        examples: N of them.
        preprocessing: `size` is R.
        folder: where the pixels are kept.
        progress: called with the number of images done since the last call.

    Returns:
        (m, 3, R, R) uint8, memory-mapped, and (m,) rows of the examples they belong to, m <= N.

    Raises:
        SourceError: no image can be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = f"{preprocessing.digest} {digest_of(examples)}"
    kept = _cached_rows(folder, identity)
    if kept is None:
        (folder / ROWS_FILE).unlink(missing_ok=True)  # else it would describe pixels that are being overwritten
        kept = _decode_all(examples, preprocessing, folder / PIXELS_FILE, progress)
        (folder / ROWS_FILE).write_text(json.dumps({"identity": identity, "kept": kept}))
    if not kept:
        raise SourceError(f"none of the {len(examples):,} training images can be decoded")
    pixels: UInt8 = np.load(folder / PIXELS_FILE, mmap_mode="r")[: len(kept)]
    return pixels, np.array(kept, np.int64)


def sample_batches(pixels: UInt8, count: int, side: int) -> Iterator[Tensor]:
    """Yield evenly spaced images of the training data, in batches.

    Args:
        pixels: (m, 3, R, R) uint8.
        count: images at most.
        side: S.

    Yields:
        (at most 16, 3, S, S) uint8.
    """
    rows = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int)
    for part in np.array_split(rows, -(-len(rows) // _SAMPLE_BATCH)):
        batch = torch.from_numpy(pixels[part])
        yield nn.functional.interpolate(batch, (side, side), mode="bilinear", antialias=True)


def digest_of(examples: Sequence[Example]) -> str:
    """Return SHA-256, hex, over all that training reads of the examples; a changed image file changes it."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.key, example.fingerprint, example.label, example.captions]).encode())
    return digest.hexdigest()


def _cached_rows(folder: Path, identity: str) -> list[int] | None:
    try:
        record = json.loads((folder / ROWS_FILE).read_text())
    except (OSError, ValueError):
        return None
    valid = record.get("identity") == identity and (folder / PIXELS_FILE).is_file()
    return list(record["kept"]) if valid else None


def _decode_all(
    examples: Sequence[Example], preprocessing: Preprocessing, path: Path, progress: Callable[[int], object]
) -> list[int]:
    side = preprocessing.size
    pixels = open_memmap(path, "w+", np.uint8, (len(examples), 3, side, side))
    kept: list[int] = []
    with path.open("r+b") as file, ThreadPoolExecutor() as pool:
        # Reserve the space: a full disk is an error here; while writing to the map it would be a SIGBUS.
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        for start in range(0, len(examples), _CHUNK_IMAGES):
            if start and start % _FLUSH_IMAGES == 0:
                pool.submit(os.fsync, file.fileno())  # while the next images are decoded
            chunk = examples[start : start + _CHUNK_IMAGES]
            tasks = [chunk[first : first + _TASK_IMAGES] for first in range(0, len(chunk), _TASK_IMAGES)]
            decoded = pool.map(lambda task: [_pixels(example, preprocessing) for example in task], tasks)
            for row, image in enumerate(chain.from_iterable(decoded), start):
                if image is not None:
                    pixels[len(kept)] = image
                    kept.append(row)
            progress(len(chunk))
    pixels.flush()
    return kept


def _pixels(example: Example, preprocessing: Preprocessing) -> UInt8 | None:
    try:
        return preprocessing(decode(example.load(), target=preprocessing.size).image)
    except LookalikeError:
        return None
