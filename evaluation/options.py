"""Options of an evaluation: measures, unseen classes, number of pairs, seed."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.calibrate import Method
from evaluation.labels import DEPTHS

MEASURES = ("labels", "captions", "zero_shot", "pairs", "search")
"""Each needs labels, captions or a text tower, and is left out where they are missing."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an evaluation.

    Attributes:
        measures: some of MEASURES.
        unseen: classes unseen in training, by name, or as a share (see `classes.unseen_classes`).
        depths: the k of hit rates and recalls.
        prompt: template of a class's text query; `{}` is replaced by its name.
        views: take two views of each image as positive pairs (see `views`), not two images of a class.
        pairs: maximum number of pairs of each kind, validation and test together.
        calibration: method of the probability curve.
        resamples: of the bootstrap; 0 leaves intervals out.
        seed: of the pairs and the bootstrap.
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
