"""Kept images -> batches of random views, drawn by worker processes ahead of the step that needs them.

Every batch is a function of seed, epoch and position, so a run that resumes, or runs on more workers, sees the same
ones. Dimension letters: b images of a batch, v views of each, S side of the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lookalike.types import Int64
from training.data.image_cache import Views, view_seed
from training.data.sampling import epoch_batches
from training.settings import Settings


@dataclass(frozen=True)
class Batch:
    """What a step learns from.

    Attributes:
        pixels: (v * b, 3, S, S) uint8; row i and row i + b show the same image where v is 2.
        labels: (v * b,) int64 classes or, where views are compared, the images' rows; None with captions alone.
        texts: b captions; None without captions.
    """

    pixels: Tensor
    labels: Tensor | None
    texts: list[str] | None


class Batches:
    """All batches of a run.

    Args:
        views: the images' random views, v of each.
        labels: (m,) int64 of all m images, None where none are used.
        captions: of all images, None where none are used; each time one of an image's captions is drawn.
        batch_size: b.
        per_class: see `epoch_batches`.
        seed: of the run.
        workers: processes that draw views; 0 draws them in this one.
        by_image: whether rows, not labels, say what belongs together.
    """

    def __init__(
        self,
        views: Views,
        labels: Int64 | None,
        captions: Sequence[tuple[str, ...]] | None,
        *,
        batch_size: int,
        per_class: int,
        seed: int,
        workers: int,
        by_image: bool,
    ) -> None:
        self._views = views
        self._labels = labels
        self._captions = captions
        self._size = batch_size
        self._per_class = per_class
        self._seed = seed
        self._workers = workers
        self._by_image = by_image
        self.steps_per_epoch = len(self._rows(0))

    def epoch(self, number: int, first: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """An epoch's batches from the given one on; of each, this rank's share: every `ranks`-th image."""
        rows = self._rows(number)[first:, rank::ranks]
        requests = [[(int(row), view_seed(self._seed, number, int(row))) for row in batch] for batch in rows]
        loader: DataLoader[Tensor] = DataLoader(
            self._views,
            batch_sampler=requests,
            num_workers=self._workers,
            worker_init_fn=_one_thread if self._workers else None,
            prefetch_factor=4 if self._workers else None,
            generator=torch.Generator(),  # else each new loader would draw from the state that dropout draws from
        )
        for batch, images in zip(rows, loader, strict=True):  # (b, v, 3, S, S)
            yield self._batch(batch, images, number)

    def _rows(self, number: int) -> Int64:
        balanced = self._labels if self._per_class else None
        return epoch_batches(balanced, len(self._views), self._size, self._per_class, self._seed, number)

    def _batch(self, rows: Int64, images: Tensor, epoch: int) -> Batch:
        views = images.shape[1]
        pixels = images.transpose(0, 1).flatten(0, 1)
        ids = rows if self._by_image else None if self._labels is None else self._labels[rows]
        labels = None if ids is None else torch.from_numpy(ids).repeat(views)
        texts = None
        if self._captions is not None:
            chosen = [(self._captions[row], view_seed(self._seed + 1, epoch, int(row))) for row in rows]
            texts = [captions[seed % len(captions)] for captions, seed in chosen]
        return Batch(pixels, labels, texts)


def fitting(settings: Settings, count: int, labels: Int64 | None) -> tuple[Settings, str]:
    """The settings with a batch that few images or few classes can fill, and a word about it where it was changed.

    Args:
        settings: the configuration.
        count: training images.
        labels: (count,) their classes, None where there are none.
    """
    size, group = settings.optimizer.batch_size, settings.sampling.per_class
    wanted = min(size, max(2, count))
    if group and labels is not None:
        classes = len(np.unique(labels))
        wanted = max(group, wanted // group * group)
        if wanted // group > classes:
            group = -(-wanted // classes)
            wanted = group * min(classes, wanted // group)
    if (wanted, group) == (size, settings.sampling.per_class):
        return settings, ""
    optimizer = settings.optimizer.model_copy(update={"batch_size": wanted})
    sampling = settings.sampling.model_copy(update={"per_class": group})
    text = (
        f"{count:,} training images"
        + (f" of {len(np.unique(labels)):,} classes" if labels is not None else "")
        + f" make a batch of {wanted}"
        + (f" instead of {size}" if wanted != size else "")
        + (f", {group} of each class" if group else "")
        + (f" instead of {settings.sampling.per_class}" if group != settings.sampling.per_class else "")
    )
    return settings.model_copy(update={"optimizer": optimizer, "sampling": sampling}), text


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
