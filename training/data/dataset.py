"""Decoded training and validation images of a run. Dimension letters: m training images, R side of a cached image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch.distributed as dist
from tqdm import tqdm

from evaluation.datasets import Example
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import SourceError
from lookalike.types import Int64, UInt8
from training.data.augment import cached_side
from training.data.image_cache import cache_images
from training.data.splits import Splits, read_splits
from training.data.validation_set import ValidationSet, label_numbers, load_validation_set
from training.distributed import Process
from training.objectives.base import Need
from training.settings import Settings


@dataclass(frozen=True)
class TrainingData:
    """All images that a run reads.

    Attributes:
        examples: the m training images that can be decoded.
        pixels: (m, 3, R, R) uint8, memory-mapped.
        labels: (m,) int64; None where an image has no class.
        captions: of each, where captions are trained on.
        seen: validation images of classes that are trained on.
        unseen: validation images of classes that are held out whole; None where there are none.
        rejected: training images that can't be decoded.
    """

    examples: list[Example]
    pixels: UInt8
    labels: Int64 | None
    captions: list[tuple[str, ...]] | None
    seen: ValidationSet
    unseen: ValidationSet | None
    rejected: int

    @property
    def validation_examples(self) -> list[Example]:
        """All validation images as read; the evaluation of the exported encoder measures them."""
        return [*self.seen.examples, *(self.unseen.examples if self.unseen else [])]


def load_data(
    settings: Settings, preprocessing: Preprocessing, needs: Need, folder: Path, process: Process
) -> TrainingData:
    """Read, split and decode the images.

    Args:
        settings: the configuration.
        preprocessing: of the encoder.
        needs: what the objective needs of each image.
        folder: the run's work folder, where decoded images are kept.
        process: the first process decodes while the others wait for it.

    Raises:
        SourceError: no data is named, none can be read, or it lacks what the objective needs.
    """
    captions = needs == "captions"
    splits = read_splits(settings.data, settings.seed, captions=captions)
    data = _decode(splits, settings, preprocessing, folder, process, captions=captions)
    if needs == "labels":
        _require_classes(data, settings.objective.name)
    return data


def _decode(
    splits: Splits, settings: Settings, preprocessing: Preprocessing, folder: Path, process: Process, *, captions: bool
) -> TrainingData:
    side = cached_side(settings.augment, preprocessing.size)
    cached_as = replace(preprocessing, size=side, resize=side)
    hidden = None if process.first else True
    with tqdm(total=len(splits), desc="decode", unit=" images", leave=False, disable=hidden) as bar:
        if not process.first:
            dist.barrier()
        pixels, kept = cache_images(splits.train, cached_as, folder / "pictures", bar.update)
        seen = load_validation_set(splits.seen, preprocessing, folder / "validation", bar.update, captions=captions)
        unseen = None
        if splits.unseen:
            unseen = load_validation_set(splits.unseen, preprocessing, folder / "unseen", bar.update, captions=captions)
        if process.first and process.count > 1:
            dist.barrier()
    examples = [splits.train[row] for row in kept]
    texts = [example.captions for example in examples] if captions else None
    rejected = len(splits.train) - len(kept)
    return TrainingData(examples, pixels, label_numbers(examples), texts, seen, unseen, rejected)


def _require_classes(data: TrainingData, objective: str) -> None:
    if data.labels is None or data.seen.views:
        missing = "" if data.labels is None else f"; the {len(data.seen.examples):,} validation images have none"
        raise SourceError(
            f"the objective {objective} needs a class for every image: a folder of class folders, or a column "
            f"(data.label_column){missing}"
        )
    if data.labels.max() == 0:
        raise SourceError(
            f"all {len(data.examples):,} training images are of one class, {data.examples[0].label!r}; add images of "
            "another class"
        )
