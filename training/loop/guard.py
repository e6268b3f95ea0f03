"""What goes wrong in contrastive training, noticed from figures and said in words.

A collapsed encoder gives every image nearly the same vector; a loss that mines finds nothing to do; a learning rate
made for training from scratch wipes out what a pretrained network knows. Knows no network and no data.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping

from torch import Tensor

COLLAPSED_SPREAD = 0.1
"""Below this share of the spread that directions drawn at random would have, the batch is all but one point."""

_LONGEST_WINDOW, _SHORTEST_WINDOW = 50, 5
_MARGIN_TOLERANCE = 0.01
_NO_GAP = 0.02
_IDLE_SHARE = 0.001
_PRETRAINED_CLIP_RATE = 5e-5
_PRETRAINED_CNN_RATE = 3e-3


def spread(embeddings: Tensor) -> float:
    """How far unit rows (n, d) lie apart: 1 - |mean row|^2, 0 where all agree, near 1 where they cancel out.

    >>> import torch
    >>> spread(torch.eye(2)), spread(torch.eye(2)[[0, 0]])
    (0.5, 0.0)
    """
    return max(0.0, float(1.0 - embeddings.detach().float().mean(0).square().sum()))


class Watch:
    """Looks at every step and speaks once of each thing that it notices, with a mend that the objective has.

    Args:
        objective: which has a `margin`, a way of `mining` and a `temperature`, or has not.
        steps: of the whole run; what must last to be spoken of lasts for 50 of them, in a short run for a quarter.
    """

    def __init__(self, objective: object, steps: int) -> None:
        self._mined = hasattr(objective, "mining")
        self._margin: float | None = getattr(objective, "margin", None)
        self._tempered = hasattr(objective, "temperature")
        self._window = min(_LONGEST_WINDOW, max(_SHORTEST_WINDOW, steps // 4))
        self._losses: deque[float] = deque(maxlen=self._window)
        self._active: deque[float] = deque(maxlen=self._window)
        self._gaps: deque[float] = deque(maxlen=self._window)
        self._spreads: deque[float] = deque(maxlen=self._window)
        self._said: set[str] = set()

    def look(self, loss: float, spread_now: float, stats: Mapping[str, float]) -> list[str]:
        """One step's figures -> what has to be said, mostly nothing."""
        self._losses.append(loss)
        self._spreads.append(spread_now)
        self._active.append(stats.get("active", 1.0))
        self._gaps.append(stats.get("positive_cosine", 0.0) - stats.get("negative_cosine", 0.0))
        found = [(code, text) for code, text in self._findings() if code not in self._said]
        self._said |= {code for code, _ in found}
        return [text for _, text in found]

    def _stuck(self) -> bool:
        """A mined loss may equal the margin by chance; only where positives are no nearer is nothing learned."""
        if not self._mined or not self._margin or _mean(self._gaps) > _NO_GAP:
            return False
        return abs(_mean(self._losses) - self._margin) < _MARGIN_TOLERANCE * self._margin

    def _findings(self) -> Iterator[tuple[str, str]]:
        if not math.isfinite(self._losses[-1]):
            yield "nan", "the loss is not finite: lower the learning rate, or train in fp32"
        if len(self._losses) < self._window:
            return
        mine = ["mine semi-hard instead of hard"] if self._mined else []
        if _mean(self._spreads) < COLLAPSED_SPREAD:
            mends = _either("lower the learning rate", *["raise the temperature"] * self._tempered, *mine)
            yield (
                "collapse",
                f"the embeddings have collapsed: over the last {self._window} steps all images got nearly the same "
                f"vector (spread {_mean(self._spreads):.3f}; 1 is far apart). {mends}",
            )
        if self._stuck():
            yield (
                "margin",
                f"the loss is stuck at the margin of {self._margin:g}: positives and negatives are equally far, "
                f"nothing is being learned. {_either('lower the learning rate', *mine)}",
            )
        if self._margin and _mean(self._active) < _IDLE_SHARE:
            yield (
                "idle",
                "hardly any pair or triplet violates the margin any more: there is nothing left to learn from these "
                f"batches. {_either('stop here', 'raise the margin', 'put more classes into a batch')}",
            )


def _either(*mends: str) -> str:
    """A sentence that offers them.

    >>> _either("stop here", "raise the margin")
    'Stop here, or raise the margin'
    """
    text = ", ".join(mends[:-1]) + ", or " * (len(mends) > 1) + mends[-1]
    return text[0].upper() + text[1:]


def learning_rate_warning(family: str, rate: float, frozen: float) -> str | None:
    """Whether a peak learning rate is likely to wreck a pretrained network, in words; None where it is not.

    Args:
        family: of the network, `lite` or `open_clip`.
        rate: at the peak, of the network's last stage.
        frozen: share of the stages that stay as they are.
    """
    limit = _PRETRAINED_CLIP_RATE if family == "open_clip" else _PRETRAINED_CNN_RATE
    if rate <= limit or frozen >= 1:
        return None
    return (
        f"optimizer.learning_rate = {rate:g} is high for a pretrained network of this kind: above {limit:g} it tends "
        "to forget what it knew. Lower it, freeze more stages (base.freeze), or keep a share of the old weights "
        "(optimizer.wise)"
    )


def _mean(values: deque[float]) -> float:
    return sum(values) / len(values)
