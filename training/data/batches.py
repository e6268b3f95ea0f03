"""Batches of random views of the cached images, prepared by worker processes ahead of the step that needs them.

Each batch is a function of seed, epoch and position. A resumed run, or one with another number of workers, gets the
same batches. Dimension letters: b images of a batch, v views of each, S side of the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lookalike.types import Int64
from training.data.sampling import epoch_batches
from training.data.views import Views, view_seed
from training.settings import Settings


@dataclass(frozen=True)
class Batch:
    """The inputs of one step.

    Attributes:
        pixels: (v * b, 3, S, S) uint8; row i and row i + b show the same image where v is 2.
        labels: (v * b,) int64 classes or, where views are compared, the images' rows; None with captions alone.
        texts: b captions; None without captions.
    """

    pixels: Tensor
    labels: Tensor | None
    texts: list[str] | None

    def split(self, size: int) -> list[Batch]:
        """Return batches of at most `size` rows."""
        parts = []
        for start in range(0, len(self.pixels), size):
            rows = slice(start, start + size)
            labels = None if self.labels is None else self.labels[rows]
            parts.append(Batch(self.pixels[rows], labels, None if self.texts is None else self.texts[rows]))
        return parts


class Batches:
    """All batches of a run.

    Args:
        views: the images' random views, v of each.
        labels: (m,) int64 of all m images, None where none are used.
        captions: of all images, None where none are used; each time one of an image's captions is drawn.
        batch_size: b.
        per_class: see `epoch_batches`.
        seed: of the run.
        workers: processes that draw views; 0 draws them in this process.
        by_image: whether `Batch.labels` holds the images' rows instead of their classes.
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
        """Yield an epoch's batches from the `first` on; of each batch, every `ranks`-th image from `rank` on."""
        rows = self._rows(number)[first:, rank::ranks]
        requests = [[(int(row), view_seed(self._seed, number, int(row))) for row in batch] for batch in rows]
        loader: DataLoader[Tensor] = DataLoader(
            self._views,
            batch_sampler=requests,
            num_workers=self._workers,
            worker_init_fn=_use_one_thread if self._workers else None,
            prefetch_factor=4 if self._workers else None,
            generator=torch.Generator(),  # else each new loader would advance the generator that dropout uses
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
            choices = [(self._captions[row], view_seed(self._seed + 1, epoch, int(row))) for row in rows]
            texts = [captions[seed % len(captions)] for captions, seed in choices]
        return Batch(pixels, labels, texts)


def fit_batch_size(settings: Settings, count: int, labels: Int64 | None) -> tuple[Settings, str]:
    """Reduce the batch size to what the training images and their classes can fill.

    Args:
        settings: the configuration.
        count: training images.
        labels: (count,) their classes, None where there are none.

    Returns:
        The settings, and a warning; empty where nothing was changed.
    """
    old_size, old_group = settings.optimizer.batch_size, settings.sampling.per_class
    size, group = min(old_size, max(2, count)), old_group
    if group and labels is not None:
        classes = len(np.unique(labels))
        size = max(group, size // group * group)
        if size // group > classes:
            group = -(-size // classes)
            size = group * min(classes, size // group)
    if (size, group) == (old_size, old_group):
        return settings, ""
    optimizer = settings.optimizer.model_copy(update={"batch_size": size})
    sampling = settings.sampling.model_copy(update={"per_class": group})
    warning = (
        f"{count:,} training images"
        + (f" of {len(np.unique(labels)):,} classes" if labels is not None else "")
        + f" make a batch of {size}"
        + (f" instead of {old_size}" if size != old_size else "")
        + (f", {group} of each class" if group else "")
        + (f" instead of {old_group}" if group != old_group else "")
    )
    return settings.model_copy(update={"optimizer": optimizer, "sampling": sampling}), warning


def _use_one_thread(worker: int) -> None:
    torch.set_num_threads(1)
