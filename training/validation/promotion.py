"""Whether a trained encoder may take the base's place, and how much of the base's weights it had better keep.

What is measured on held-out images decides: those of trained classes, and where whole classes were held out those,
too, so that what is won on the one is not paid for with the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

SHARES = (0.5, 0.25, 0.1)
"""Shares of the trained weights that are tried where classes that training does not see matter (WiSE-FT, Wortsman et
al. 2022). More than half is not: few held-out classes can't show what all of the weights cost the others, see
docs/training.md."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How good an encoder is on held-out images.

    Attributes:
        seen: figure on images of trained classes, in [0, 1].
        unseen: on images of classes that training did not see; None where there are none.
        share: of the trained weights, the rest being the base's.
    """

    seen: float
    unseen: float | None = None
    share: float = 1.0

    def holds_against(self, base: Standing) -> bool:
        """Whether nothing got worse.

        >>> Standing(0.9, 0.5).holds_against(Standing(0.8, 0.6))
        False
        """
        kept = self.unseen is None or base.unseen is None or self.unseen >= base.unseen
        return kept and self.seen >= base.seen


def within_chance(before: float, after: float, count: int) -> bool:
    """Whether two shares of `count` images differ by less than two standard errors of independent draws.

    >>> within_chance(0.4, 0.45, 48), within_chance(0.4, 0.45, 4800)
    (True, False)
    """
    spread = (before * (1 - before) + after * (1 - after)) / count
    return (after - before) ** 2 < 4 * spread


def choose(candidates: Sequence[Standing], base: Standing) -> Standing:
    """The best on trained classes among those that lose nothing; if none is, the one that loses least on unseen ones.

    >>> choose([Standing(0.9, 0.5), Standing(0.85, 0.6, 0.5)], Standing(0.8, 0.6)).share
    0.5
    """
    sound = [candidate for candidate in candidates if candidate.holds_against(base)]
    if sound:
        return max(sound, key=lambda standing: standing.seen)
    return max(candidates, key=lambda standing: (standing.unseen or 0.0, standing.seen))


def mixed(trained: dict[str, Tensor], start: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Share x trained + (1 - share) x start, of every weight that is a float."""
    if share == 1:
        return trained
    return {
        name: share * value + (1 - share) * start[name].to(value) if value.is_floating_point() else value
        for name, value in trained.items()
    }


def try_shares(
    trained: dict[str, Tensor],
    start: dict[str, Tensor],
    base: Standing,
    measure: Callable[[dict[str, Tensor], float], Standing],
) -> tuple[Standing, list[Standing]]:
    """Measures every share and chooses.

    Args:
        trained: weights by name.
        start: the base's weights.
        base: its figures.
        measure: weights and their share -> figures.

    Returns:
        The chosen one, and all of them.
    """
    tried = [measure(mixed(trained, start, share), share) for share in SHARES]
    return choose(tried, base), tried
