"""Class names as integer labels and as prompts, and the classes that are unseen in training."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from lookalike.errors import SourceError
from lookalike.types import Int64


def encode_labels(labels: Iterable[str | None], names: Sequence[str]) -> Int64:
    """Encode labels as positions in `names`, (n,) int64; -1 for labels that are not among them.

    >>> encode_labels(["dog", None, "cat"], ["cat", "dog"]).tolist()
    [1, -1, 0]
    """
    positions = {name: position for position, name in enumerate(names)}
    return np.array([-1 if label is None else positions.get(label, -1) for label in labels], np.int64)


def unseen_classes(names: Collection[str], unseen: Sequence[str] | float) -> frozenset[str]:
    """Return the classes that are unseen in training.

    Args:
        names: all classes.
        unseen: their names, or a share in (0, 1): the last ceil(share x classes) in the order of their names, so
            that training and evaluation agree on them without passing a list.

    Raises:
        SourceError: a name is no class, or a share leaves no class on one side.

    >>> sorted(unseen_classes(["airplane", "bird", "cat", "deer"], 0.5))
    ['cat', 'deer']
    """
    if isinstance(unseen, float):
        ordered = sorted(set(names))
        count = math.ceil(unseen * len(ordered))
        if not 0 < count < len(ordered):
            raise SourceError(f"a share of {unseen} of {len(ordered)} classes leaves none on one side")
        return frozenset(ordered[-count:])
    unknown = set(unseen) - set(names)
    if unknown:
        raise SourceError(f"unseen classes that no image has: {', '.join(sorted(unknown))}")
    return frozenset(unseen)


def parse_unseen(text: str) -> tuple[str, ...] | float:
    """Parse a share like `0.5`, or comma-separated class names.

    >>> parse_unseen("0.5"), parse_unseen("cat, dog")
    (0.5, ('cat', 'dog'))
    """
    try:
        return float(text)
    except ValueError:
        return tuple(name.strip() for name in text.split(",") if name.strip())


def prompt_text(label: str) -> str:
    """Return a class name as text for a prompt: `_` and `-` become spaces.

    >>> prompt_text("pickup_truck")
    'pickup truck'
    """
    return " ".join(label.replace("_", " ").replace("-", " ").split())
