"""What an evaluation may be told: which measures, on which classes, how many pairs, with which seed."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.calibrate import Method
from evaluation.labels import DEPTHS

MEASURES = ("labels", "captions", "zero_shot", "pairs")
"""What can be measured; each needs labels, captions, or a text tower, and is left out where they lack."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure.

    Attributes:
        measures: some of MEASURES.
        unseen: classes that training did not see, by name, or as a share (see `classes.unseen_classes`).
        depths: the k of hit rates and recalls.
        prompt: what asks for a class, `{}` standing for its name.
        views: whether two views of each image are the pairs of images that belong together (see `views`), and
            not two images of a class.
        pairs: at most so many pairs of each kind, validation and test together.
        calibration: the curve of probability.
        resamples: how often the bootstrap draws; 0 leaves intervals out.
        seed: decides which pairs are drawn and what the bootstrap draws.
    """

    measures: tuple[str, ...] = MEASURES
    unseen: tuple[str, ...] | float | None = None
    depths: tuple[int, ...] = DEPTHS
    prompt: str = "a photo of a {}"
    views: bool = False
    pairs: int = 20_000
    calibration: Method = "isotonic"
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.measures) - set(MEASURES)
        if unknown:
            raise ValueError(f"unknown measure {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
        if "{}" not in self.prompt:
            raise ValueError(f"the prompt {self.prompt!r} has no {{}} for the name of the class")
        if self.pairs < 8 or self.resamples < 0 or min(self.depths, default=0) < 1:
            raise ValueError("pairs must be at least 8, resamples at least 0, depths at least 1")
