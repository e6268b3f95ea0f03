"""Random views of cached images; a view depends on the seed of its request alone, not on the number of workers.

Dimension letters: m images, v views of each, R side of a cached image, S side of the input.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from torchvision.transforms import v2

from lookalike.types import UInt8


class Views(Dataset[Tensor]):
    """Random views of cached images.

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
        if get_worker_info() is not None:  # a worker uses its generator for nothing else: no need to restore it
            torch.default_generator.manual_seed(seed)
            return self._views(image)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._views(image)

    def _views(self, image: Tensor) -> Tensor:
        return torch.stack([self._transform(image) for _ in range(self._count)])


def view_seed(seed: int, epoch: int, row: int) -> int:
    """Return the seed of an image's views in an epoch: 63 bits that differ wherever one of the three does."""
    digest = hashlib.blake2b(f"{seed} {epoch} {row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
