"""Warnings about common faults of contrastive training, from the figures of its steps.

A collapsed encoder gives every image nearly the same vector. A loss with mining runs out of triplets. A learning rate
for training from scratch destroys pretrained weights. The checks are independent of networks and data.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping

from torch import Tensor

COLLAPSED_SPREAD = 0.1
"""Spread below which a batch counts as collapsed; rows in random directions have a spread near 1."""

_MAX_WINDOW_STEPS, _MIN_WINDOW_STEPS = 50, 5
_MARGIN_TOLERANCE = 0.01
_MAX_STUCK_GAP = 0.02
_MAX_IDLE_SHARE = 0.001


def spread(embeddings: Tensor) -> float:
    """Return how far unit rows (n, d) lie apart: 1 - |mean row|^2, 0 where all are equal, near 1 where they cancel out.

    >>> import torch
    >>> spread(torch.eye(2)), spread(torch.eye(2)[[0, 0]])
    (0.5, 0.0)
    """
    return max(0.0, float(1.0 - embeddings.detach().float().mean(0).square().sum()))


class TrainingGuard:
    """Checks every step, and warns once of each fault with suggestions that fit the objective.

    Args:
        objective: its attributes `margin`, `mining` and `temperature`, where it has them, decide what is checked.
        steps: of the whole run; a fault must last 50 steps, or a quarter of a short run, before it is reported.
    """

    def __init__(self, objective: object, steps: int) -> None:
        self._mines = hasattr(objective, "mining")
        self._margin: float | None = getattr(objective, "margin", None)
        self._has_temperature = hasattr(objective, "temperature")
        self._window = min(_MAX_WINDOW_STEPS, max(_MIN_WINDOW_STEPS, steps // 4))
        self._losses: deque[float] = deque(maxlen=self._window)
        self._active: deque[float] = deque(maxlen=self._window)
        self._gaps: deque[float] = deque(maxlen=self._window)
        self._spreads: deque[float] = deque(maxlen=self._window)
        self._reported: set[str] = set()

    def check(self, loss: float, batch_spread: float, stats: Mapping[str, float]) -> list[str]:
        """Return new warnings after a step with these figures."""
        self._losses.append(loss)
        self._spreads.append(batch_spread)
        self._active.append(stats.get("active", 1.0))
        self._gaps.append(stats.get("positive_cosine", 0.0) - stats.get("negative_cosine", 0.0))
        new = [(code, text) for code, text in self._findings() if code not in self._reported]
        self._reported |= {code for code, _ in new}
        return [text for _, text in new]

    def _stuck(self) -> bool:
        """A mined loss may equal the margin by chance; training is stuck only if positives are no nearer as well."""
        if not self._mines or not self._margin or _mean(self._gaps) > _MAX_STUCK_GAP:
            return False
        return abs(_mean(self._losses) - self._margin) < _MARGIN_TOLERANCE * self._margin

    def _findings(self) -> Iterator[tuple[str, str]]:
        if not math.isfinite(self._losses[-1]):
            yield "nan", "the loss is not finite: lower the learning rate, or train in fp32"
        if len(self._losses) < self._window:
            return
        mining = ["mine semi-hard instead of hard"] if self._mines else []
        if _mean(self._spreads) < COLLAPSED_SPREAD:
            temperature = ["raise the temperature"] if self._has_temperature else []
            yield (
                "collapse",
                f"the embeddings have collapsed: over the last {self._window} steps all images got nearly the same "
                f"vector (spread {_mean(self._spreads):.3f}; 1 is far apart). "
                f"{_suggest('lower the learning rate', *temperature, *mining)}",
            )
        if self._stuck():
            yield (
                "margin",
                f"the loss is stuck at the margin of {self._margin:g}: positives and negatives are equally far, "
                f"nothing is being learned. {_suggest('lower the learning rate', *mining)}",
            )
        if self._margin and _mean(self._active) < _MAX_IDLE_SHARE:
            yield (
                "idle",
                "hardly any pair or triplet violates the margin any more: there is nothing left to learn from these "
                f"batches. {_suggest('stop here', 'raise the margin', 'put more classes into a batch')}",
            )


def _suggest(*suggestions: str) -> str:
    """Return a sentence that offers the suggestions.

    >>> _suggest("stop here", "raise the margin")
    'Stop here, or raise the margin'
    """
    text = ", ".join(suggestions[:-1]) + ", or " * (len(suggestions) > 1) + suggestions[-1]
    return text[0].upper() + text[1:]


def learning_rate_warning(rate: float, limit: float, frozen: float) -> str | None:
    """Return a warning where a peak learning rate is likely to destroy pretrained weights, else None.

    Args:
        rate: at the peak, of the network's last stage.
        limit: of this family of networks.
        frozen: share of the stages that are frozen.
    """
    if rate <= limit or frozen >= 1:
        return None
    return (
        f"optimizer.learning_rate = {rate:g} is high for a pretrained network of this kind: above {limit:g} it tends "
        "to forget what it has learned. Lower it, freeze more stages (base.freeze), or keep a share of the old weights "
        "(optimizer.wise)"
    )


def _mean(values: deque[float]) -> float:
    return sum(values) / len(values)
