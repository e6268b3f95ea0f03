"""Splits of the data that `[data]` names into training and validation images, the same in every run.

Held out are a share of every class and, where `data.unseen` asks for it, whole classes: training on some classes must
not make the encoder worse on others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.classes import unseen_classes
from evaluation.datasets import Example, read_examples, subsample
from lookalike.errors import SourceError
from training.settings import Data

MAX_VALIDATION_IMAGES = 5_000
"""Images that are held out of trained classes, and of whole classes; more would only make validation slower."""


@dataclass(frozen=True)
class Splits:
    """Examples that are not decoded yet.

    Attributes:
        train: training images.
        seen: validation images of classes that are trained on.
        unseen: validation images of classes that are held out whole.
    """

    train: list[Example]
    seen: list[Example]
    unseen: list[Example]

    def __len__(self) -> int:
        return len(self.train) + len(self.seen) + len(self.unseen)


def read_splits(table: Data, seed: int, *, captions: bool) -> Splits:
    """Read the examples that `[data]` names, and split them.

    Args:
        table: the table.
        seed: of the run.
        captions: whether only images with captions are used.

    Raises:
        SourceError: no data is named, none can be read, or there is too little to split.
    """
    if not table.train:
        raise SourceError("no training data: name it with --data, or in the configuration as [data] train = [...]")
    column = table.label_column or None
    examples = read_examples(table.train, label_column=column)
    if captions:
        examples = [example for example in examples if example.captions]
        if not examples:
            raise SourceError(
                f"no image of {', '.join(table.train)} has a caption, and this objective learns from captions: add a "
                ".txt beside each image or a column `caption`, or use configs/simclr.toml, which needs no captions "
                "and no classes"
            )
    examples = _filter_classes(examples, table.classes)
    unseen_names = held_out_classes(examples, table.unseen)
    unseen = [example for example in examples if example.label in unseen_names]
    train = [example for example in examples if example.label not in unseen_names]
    if table.validation:
        named = _filter_classes(read_examples(table.validation, label_column=column), table.classes)
        unseen += [example for example in named if example.label in unseen_names]
        seen = [example for example in named if example.label not in unseen_names]
    else:
        train, seen = split_by_class(train, min(table.holdout, MAX_VALIDATION_IMAGES / max(1, len(train))), seed)
    if table.limit:
        train = subsample(train, table.limit)
    _require_enough(table, train, seen, unseen)
    return Splits(
        train, seen, subsample(unseen, MAX_VALIDATION_IMAGES) if len(unseen) > MAX_VALIDATION_IMAGES else unseen
    )


def held_out_classes(examples: Sequence[Example], share: float) -> frozenset[str]:
    """Return the classes that are held out whole: the last by name, as `lookalike evaluate --unseen SHARE` counts them.

    At least two are, also where the share is less. None are where there are fewer than four classes, which would leave
    too little on either side, or where fewer than two of those held out have two images.
    """
    sizes = Counter(example.label for example in examples if example.label is not None)
    if len(sizes) < 4 or not share:
        return frozenset()
    names = unseen_classes(sizes, max(share, 2 / len(sizes)))  # within a single class every neighbor is right
    return names if sum(sizes[name] > 1 for name in names) > 1 else frozenset()


def split_by_class(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Return training and held-out images: the same share of each class, at least two of it.

    Whole classes are held out instead where no class has two images to spare.

    Args:
        examples: all of them.
        share: of the held-out ones, in (0, 1).
        seed: of the run.
    """
    by_class: dict[str | None, list[int]] = {}
    for row in np.random.default_rng(seed).permutation(len(examples)).tolist():
        by_class.setdefault(examples[row].label, []).append(row)
    held_out = {row for rows in by_class.values() for row in rows[: _held_out_count(len(rows), share)]}
    held_out = held_out or _whole_classes(by_class, share)
    rows = range(len(examples))
    return [examples[i] for i in rows if i not in held_out], [examples[i] for i in rows if i in held_out]


def _held_out_count(count: int, share: float) -> int:
    """At least two, so that each has another of its class to find; 0 where fewer than two would be left to train on."""
    held_out = max(2, round(count * share))
    return held_out if count - held_out >= 2 else 0


def _whole_classes(by_class: Mapping[str | None, Sequence[int]], share: float) -> set[int]:
    """Return the rows of a share of the classes that have a pair, at least two classes; none if that leaves none."""
    pairs = [rows for rows in by_class.values() if len(rows) > 1]
    count = max(2, round(share * len(pairs)))
    return {row for rows in pairs[:count] for row in rows} if count < len(pairs) else set()


def _filter_classes(examples: list[Example], classes: Sequence[str]) -> list[Example]:
    if not classes:
        return examples
    unknown = sorted(set(classes) - {example.label for example in examples if example.label})
    if unknown:
        raise SourceError(f"data.classes names {unknown[0]!r}, but no image has that class")
    return [example for example in examples if example.label in set(classes)]


def _require_enough(table: Data, train: list[Example], seen: list[Example], unseen: list[Example]) -> None:
    sources = ", ".join(table.train)
    if not (train or seen or unseen):
        raise SourceError(
            f"no images in {sources}: name folders of images, tars or Parquet files; a damaged file holds none"
        )
    if not train or not seen:
        raise SourceError(
            f"{sources}: too few images for training and validation, {len(train)} and {len(seen)} of them; add images, "
            "or name validation images with --validation"
        )
