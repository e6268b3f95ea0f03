"""The table `[data]` -> images to train on and images to judge by, decoded; the same ones in every run.

Held out are a share of every class and, where asked for, whole classes: what is learned of some products must not
cost it the others. Dimension letters: m training images, R side of a kept image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch.distributed as dist
from tqdm import tqdm

from evaluation.classes import unseen_classes
from evaluation.datasets import Example, read_examples, subsample
from lookalike.errors import SourceError
from lookalike.types import Int64, UInt8
from training.data.augment import cached_side
from training.data.image_cache import cache_images
from training.distributed import Process
from training.network.model import Trainable
from training.objectives.base import Need
from training.settings import Data, Settings
from training.validation.validation import Validation, label_rows, prepare_validation

MOST_JUDGES = 5_000
"""Images that are held out of trained classes, and of whole classes: more would only be looked at for longer."""


@dataclass(frozen=True)
class TrainingData:
    """What a run reads.

    Attributes:
        examples: the m training images that can be decoded.
        pixels: (m, 3, R, R) uint8, memory-mapped.
        labels: (m,) int64; None where an image has no class.
        captions: of each, where captions are trained on.
        seen_examples: held-out images of classes that are trained on.
        unseen_examples: images of classes that are not.
        seen: the first of these, decoded.
        unseen: the second, decoded; None where none were asked for.
        rejected: training images that can't be decoded.
    """

    examples: list[Example]
    pixels: UInt8
    labels: Int64 | None
    captions: list[tuple[str, ...]] | None
    seen_examples: list[Example]
    unseen_examples: list[Example]
    seen: Validation
    unseen: Validation | None
    rejected: int

    @property
    def held_out(self) -> list[Example]:
        """What the full evaluation at the end measures."""
        return self.seen_examples + self.unseen_examples


@dataclass(frozen=True)
class _Parts:
    train: list[Example]
    seen: list[Example]
    unseen: list[Example]


def read_data(settings: Settings, model: Trainable, needs: Need, work: Path, process: Process) -> TrainingData:
    """Reads, splits and decodes.

    Args:
        settings: the configuration.
        model: whose input size and normalisation count.
        needs: of the objective.
        work: the run's folder, for decoded images.
        process: the first one decodes, the others wait for it.

    Raises:
        SourceError: no data named, none that can be read, or none with what the objective needs.
    """
    parts = _parts(settings.data, settings.seed, captions=needs == "captions")
    captions = needs == "captions"
    side = cached_side(settings.augment, model.preprocessing.size)
    total = len(parts.train) + len(parts.seen) + len(parts.unseen)
    with tqdm(total=total, desc="decode", unit=" images", leave=False, disable=None if process.first else True) as bar:
        if not process.first:
            dist.barrier()
        kept_at = replace(model.preprocessing, size=side, resize=side)
        pixels, kept = cache_images(parts.train, kept_at, work / "pictures", bar.update)
        seen = prepare_validation(parts.seen, model, work / "validation", bar.update, captions=captions)
        unseen = None
        if parts.unseen:
            unseen = prepare_validation(parts.unseen, model, work / "unseen", bar.update, captions=captions)
        if process.first and process.count > 1:
            dist.barrier()
    read = [parts.train[row] for row in kept]
    labels = label_rows(read)
    if needs == "labels" and (labels is None or seen.views):
        name = settings.objective.name
        raise SourceError(
            f"the objective {name} needs a class for every image: a folder of class folders, or a column "
            "(data.label_column)" + (f"; the {len(parts.seen):,} to judge by have none" if labels is not None else "")
        )
    if needs == "labels" and labels is not None and labels.max() == 0:
        raise SourceError(
            f"all {len(read):,} training images are of one class, {read[0].label!r}: there is nothing to tell it from"
        )
    texts = [example.captions for example in read] if captions else None
    return TrainingData(
        read, pixels, labels, texts, parts.seen, parts.unseen, seen, unseen, len(parts.train) - len(kept)
    )


def _parts(table: Data, seed: int, *, captions: bool) -> _Parts:
    if not table.train:
        raise SourceError("no training data: name it with --data, or in the configuration as [data] train = [...]")
    column = table.label_column or None
    examples = read_examples(table.train, label_column=column)
    if captions:
        examples = [example for example in examples if example.captions]
        if not examples:
            raise SourceError(
                f"no image of {', '.join(table.train)} has a caption, and this objective learns from captions: a "
                ".txt beside each image, or a column `caption`; configs/simclr.toml needs neither that nor classes"
            )
    examples = _of_classes(examples, table.classes)
    unseen = classes_apart(examples, table.unseen)
    apart = [example for example in examples if example.label in unseen]
    examples = [example for example in examples if example.label not in unseen]
    if table.validation:
        others = _of_classes(read_examples(table.validation, label_column=column), table.classes)
        apart += [example for example in others if example.label in unseen]
        seen = [example for example in others if example.label not in unseen]
    else:
        examples, seen = split(examples, min(table.holdout, MOST_JUDGES / max(1, len(examples))), seed)
    if table.limit:
        examples = subsample(examples, table.limit)
    if not (examples or seen or apart):
        raise SourceError(
            f"no images in {', '.join(table.train)}: name folders of images, tars or Parquet files; a damaged one "
            "gives none"
        )
    if not examples or not seen:
        raise SourceError(
            f"{', '.join(table.train)}: too few images to train on some and judge by others, {len(examples)} and "
            f"{len(seen)} of them; add images, or name those to judge by with --validation"
        )
    return _Parts(examples, seen, subsample(apart, MOST_JUDGES) if len(apart) > MOST_JUDGES else apart)


def classes_apart(examples: Sequence[Example], share: float) -> frozenset[str]:
    """The classes that are held out whole: the last by name, as `lookalike evaluate --unseen SHARE` counts them.

    Two classes at least, also where the share is less. None where fewer than four classes would leave too little on
    either side, or where fewer than two of those held out have two images.
    """
    sizes = Counter(example.label for example in examples if example.label is not None)
    if len(sizes) < 4 or not share:
        return frozenset()
    chosen = unseen_classes(sizes, max(share, 2 / len(sizes)))  # of one class alone every neighbour is right
    return chosen if sum(sizes[name] > 1 for name in chosen) > 1 else frozenset()


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and held-out images; of each class alike, at least two of each held out.

    Where no class has two to spare, whole classes are held out instead.

    Args:
        examples: all of them.
        share: of the held-out ones, in (0, 1).
        seed: of the run.
    """
    by_class: dict[str | None, list[int]] = {}
    for row in np.random.default_rng(seed).permutation(len(examples)).tolist():
        by_class.setdefault(examples[row].label, []).append(row)
    held = {row for rows in by_class.values() for row in rows[: _held(len(rows), share)]}
    held = held or _whole_classes(by_class, share)
    rows = range(len(examples))
    return [examples[i] for i in rows if i not in held], [examples[i] for i in rows if i in held]


def _whole_classes(by_class: Mapping[str | None, Sequence[int]], share: float) -> set[int]:
    """The rows of a share of the classes that have a pair, at least two classes; none where that leaves none."""
    pairs = [rows for rows in by_class.values() if len(rows) > 1]
    count = max(2, round(share * len(pairs)))
    return {row for rows in pairs[:count] for row in rows} if count < len(pairs) else set()


def _held(count: int, share: float) -> int:
    """Two at least, so that each has another of its class to find; none where too few would be left to train on."""
    wanted = max(2, round(count * share))
    return wanted if count - wanted >= 2 else 0


def _of_classes(examples: list[Example], classes: Sequence[str]) -> list[Example]:
    if not classes:
        return examples
    unknown = sorted(set(classes) - {example.label for example in examples if example.label})
    if unknown:
        raise SourceError(f"data.classes names {unknown[0]!r}, which no training image is of")
    return [example for example in examples if example.label in set(classes)]
