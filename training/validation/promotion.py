"""The choice between a trained encoder and its base, and of how much of the base's weights to keep.

Measured are validation images of trained classes and, where whole classes are held out, of those as well, so that a
gain on the first does not come with a loss on the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

SHARES = (0.5, 0.25, 0.1)
"""Shares of the trained weights that are tried where classes are held out (WiSE-FT, Wortsman et al. 2022). None is
above one half: few held-out classes can't show what a larger share costs the others, see
docs/reference/training-configuration.md."""


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """Figures of an encoder on validation images.

    Attributes:
        seen: on images of trained classes, in [0, 1].
        unseen: on images of classes that are held out whole; None where there are none.
        share: of the trained weights, the rest being the base's.
    """

    seen: float
    unseen: float | None = None
    share: float = 1.0

    def no_worse_than(self, base: CandidateScore) -> bool:
        """Return whether neither figure is below the base's.

        >>> CandidateScore(0.9, 0.5).no_worse_than(CandidateScore(0.8, 0.6))
        False
        """
        unseen_kept = self.unseen is None or base.unseen is None or self.unseen >= base.unseen
        return unseen_kept and self.seen >= base.seen


def within_chance(before: float, after: float, count: int) -> bool:
    """Return whether two shares of `count` images differ by less than two standard errors of independent draws.

    >>> within_chance(0.4, 0.45, 48), within_chance(0.4, 0.45, 4800)
    (True, False)
    """
    variance = (before * (1 - before) + after * (1 - after)) / count
    return (after - before) ** 2 < 4 * variance


def select_candidate(candidates: Sequence[CandidateScore], base: CandidateScore) -> CandidateScore:
    """Return the best on trained classes among those no worse than the base; if none is, the best on unseen classes.

    >>> select_candidate([CandidateScore(0.9, 0.5), CandidateScore(0.85, 0.6, 0.5)], CandidateScore(0.8, 0.6)).share
    0.5
    """
    eligible = [candidate for candidate in candidates if candidate.no_worse_than(base)]
    if eligible:
        return max(eligible, key=lambda candidate: candidate.seen)
    return max(candidates, key=lambda candidate: (candidate.unseen or 0.0, candidate.seen))


def interpolate(trained: dict[str, Tensor], start: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return share x trained + (1 - share) x start, of every weight that is a float."""
    if share == 1:
        return trained
    return {
        name: share * value + (1 - share) * start[name].to(value) if value.is_floating_point() else value
        for name, value in trained.items()
    }


def try_shares(
    trained: dict[str, Tensor],
    start: dict[str, Tensor],
    base: CandidateScore,
    measure: Callable[[dict[str, Tensor], float], CandidateScore],
) -> tuple[CandidateScore, list[CandidateScore]]:
    """Measure every share of the trained weights, and select one.

    Args:
        trained: weights by name.
        start: the base's weights.
        base: its figures.
        measure: weights and their share -> figures.

    Returns:
        The selected one, and all of them.
    """
    candidates = [measure(interpolate(trained, start, share), share) for share in SHARES]
    return select_candidate(candidates, base), candidates
