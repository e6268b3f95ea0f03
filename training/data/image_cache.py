"""Examples -> decoded images of one size, kept on disk, and the random views that a step is made of.

An image is decoded once and kept as uint8 (3, R, R); what can't be decoded is left out and named. Views depend on the
seed that comes with each request alone, never on the number of worker processes.
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
from torch.utils.data import Dataset, get_worker_info
from torchvision.transforms import v2

from evaluation.datasets import Example
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import LookalikeError, SourceError
from lookalike.images import decode
from lookalike.types import Int64, UInt8

PIXELS, ROWS = "pictures.npy", "pictures.json"
_CHUNK, _TASK = 512, 32
"""Images that are decoded before the next are begun, and those of one task: alone, small ones wait for the GIL."""
_WRITTEN = 8 * _CHUNK
"""Images after which the disk is asked to write."""
_SAMPLE_BATCH = 16


def cache_images(
    examples: Sequence[Example], preprocessing: Preprocessing, folder: Path, progress: Callable[[int], object]
) -> tuple[UInt8, Int64]:
    """Decodes every example once; a second call over the same examples reads what the first one wrote.

    Args:
        examples: N of them.
        preprocessing: `size` is R.
        folder: where the pixels are kept.
        progress: called with the number of images done since the last call.

    Returns:
        (m, 3, R, R) uint8, memory-mapped, and (m,) the examples they belong to, m <= N.

    Raises:
        SourceError: not one image can be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = f"{preprocessing.digest} {digest_of(examples)}"
    kept = _known(folder, identity)
    if kept is None:
        (folder / ROWS).unlink(missing_ok=True)  # it would vouch for pixels that are being written over
        kept = _decode_all(examples, preprocessing, folder / PIXELS, progress)
        (folder / ROWS).write_text(json.dumps({"identity": identity, "kept": kept}))
    if not kept:
        raise SourceError(f"none of the {len(examples):,} training images can be decoded")
    pixels: UInt8 = np.load(folder / PIXELS, mmap_mode="r")[: len(kept)]
    return pixels, np.array(kept, np.int64)


def spread_sample(pixels: UInt8, count: int, side: int) -> Iterator[Tensor]:
    """Images from all over the training data, in batches.

    Args:
        pixels: (m, 3, R, R) uint8.
        count: how many at most.
        side: S.

    Yields:
        (at most 16, 3, S, S) uint8.
    """
    rows = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int)
    for part in np.array_split(rows, -(-len(rows) // _SAMPLE_BATCH)):
        batch = torch.from_numpy(pixels[part])
        yield nn.functional.interpolate(batch, (side, side), mode="bilinear", antialias=True)


def digest_of(examples: Sequence[Example]) -> str:
    """SHA-256 over everything that training reads of the examples, hex; a changed image file changes it."""
    digest = hashlib.sha256()
    for each in examples:
        digest.update(json.dumps([each.key, each.fingerprint, each.label, each.captions]).encode())
    return digest.hexdigest()


def _known(folder: Path, identity: str) -> list[int] | None:
    try:
        record = json.loads((folder / ROWS).read_text())
    except (OSError, ValueError):
        return None
    same = record.get("identity") == identity and (folder / PIXELS).is_file()
    return list(record["kept"]) if same else None


def _decode_all(
    examples: Sequence[Example], preprocessing: Preprocessing, path: Path, progress: Callable[[int], object]
) -> list[int]:
    side = preprocessing.size
    pixels = open_memmap(path, "w+", np.uint8, (len(examples), 3, side, side))
    kept: list[int] = []
    with path.open("r+b") as file, ThreadPoolExecutor() as pool:
        # a full disk is an error now; met while writing to the map it would be a SIGBUS
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        for start in range(0, len(examples), _CHUNK):
            if start and start % _WRITTEN == 0:
                pool.submit(os.fsync, file.fileno())  # what there is by now, while the next are decoded
            chunk = examples[start : start + _CHUNK]
            tasks = [chunk[first : first + _TASK] for first in range(0, len(chunk), _TASK)]
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


class Views(Dataset[Tensor]):
    """Random views of kept images.

    Args:
        pixels: (m, 3, R, R) uint8.
        transform: one random view, (3, R, R) -> (3, S, S).
        count: v, views of each image.
    """

    def __init__(self, pixels: UInt8, transform: v2.Compose, count: int) -> None:
        self._pixels = pixels
        self._transform = transform
        self._count = count

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, request: tuple[int, int]) -> Tensor:
        """(row, seed) -> (v, 3, S, S) uint8."""
        row, seed = request
        image = torch.from_numpy(np.array(self._pixels[row]))
        if get_worker_info() is not None:  # nobody else draws in a worker: its state need not be kept
            torch.default_generator.manual_seed(seed)
            return self._views(image)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._views(image)

    def _views(self, image: Tensor) -> Tensor:
        return torch.stack([self._transform(image) for _ in range(self._count)])


def view_seed(seed: int, epoch: int, row: int) -> int:
    """The seed of an image's views in an epoch: 63 bits that differ wherever one of the three does."""
    digest = hashlib.blake2b(f"{seed} {epoch} {row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
