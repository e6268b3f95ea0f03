"""Calibration of an encoder: thresholds and probabilities of pairs, and probabilities of search results.

`evaluation` fits it; it is stored next to an encoder's weights as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lookalike.errors import WeightsInvalid
from lookalike.match_calibration import MatchCalibration


@dataclass(frozen=True, slots=True)
class PairCalibration:
    """A threshold and a monotone curve from cosine to probability, for one kind of pair.

    The probability assumes that half of all pairs belong together, as in the data that it was fitted on.

    Attributes:
        threshold: cosine distance (1 - cosine, in [0, 2]) up to which a pair counts as similar.
        cosines: the curve's knots, strictly ascending, at least one.
        probabilities: at each knot the probability that the two sides belong together; non-decreasing, in [0, 1].

    Raises:
        ValueError: a value is outside these ranges.
    """

    threshold: float
    cosines: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        knots, values = np.asarray(self.cosines), np.asarray(self.probabilities)
        if not 0.0 <= self.threshold <= 2.0:
            raise ValueError(f"the threshold is {self.threshold}; a cosine distance is in [0, 2]")
        if knots.ndim != 1 or knots.shape != values.shape or knots.size == 0:
            raise ValueError(
                f"{knots.size} cosines and {values.size} probabilities; expected equal numbers, at least 1"
            )
        if not (np.isfinite(knots).all() and (np.diff(knots) > 0).all()):
            raise ValueError("the cosines are not strictly ascending")
        if not ((values >= 0).all() and (values <= 1).all() and (np.diff(values) >= 0).all()):
            raise ValueError("the probabilities are not in [0, 1] and non-decreasing")

    def probability(self, cosine: float) -> float:
        """Return the probability of a pair by its cosine: linear between the knots, constant beyond them.

        >>> PairCalibration(0.5, (0.2, 0.6), (0.0, 1.0)).probability(0.5)
        0.75
        """
        return float(self.probabilities_of(cosine))

    def probabilities_of(self, cosines: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each pair by its cosine, in the same shape."""
        return np.asarray(np.interp(np.asarray(cosines), self.cosines, self.probabilities))


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibrations of an encoder by kind; None for a kind that was not measured.

    Attributes:
        image_image: pairs of two images.
        image_text: pairs of an image and a text.
        text_search: results of searches by text.
        image_search: results of searches by image.
    """

    image_image: PairCalibration | None = None
    image_text: PairCalibration | None = None
    text_search: MatchCalibration | None = None
    image_search: MatchCalibration | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration with the values of `to_dict`.

        Raises:
            ValueError: the values are not a calibration.
        """
        readers: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "image_image": _pair,
            "image_text": _pair,
            "text_search": MatchCalibration.from_dict,
            "image_search": MatchCalibration.from_dict,
        }
        unknown = set(values) - set(readers)
        if unknown:
            raise ValueError(f"unknown kind of calibration: {', '.join(sorted(unknown))[:200]}")
        return cls(**{kind: readers[kind](each) for kind, each in values.items() if each is not None})


def read_calibration(path: Path) -> Calibration:
    """Read a calibration from a JSON file.

    Raises:
        WeightsInvalid: no such file, or not a calibration.
    """
    try:
        return Calibration.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # the last three: JSON of another shape
        raise WeightsInvalid(f"{path} is not a calibration: {error}") from error


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as JSON for `read_calibration`; create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(calibration.to_dict()) + "\n", encoding="utf-8")


def _pair(values: Mapping[str, Any]) -> PairCalibration:
    return PairCalibration(
        threshold=float(values["threshold"]),
        cosines=tuple(float(value) for value in values["cosines"]),
        probabilities=tuple(float(value) for value in values["probabilities"]),
    )
