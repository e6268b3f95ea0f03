"""CLIP's symmetric cross-entropy over pairs of image and caption.

open_clip's ClipLoss has the same value, but takes no references beyond the batch (a memory) and does not return its
logits, which the accuracies are computed from.

Dimension letters: n pairs, m references (the first n are the pairs themselves).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from training.objectives.base import Embedded, Need, Objective, Outcome, require, required


class Clip(Objective):
    """CLIP's loss (Radford et al. 2021, figure 3) with a learned, clamped temperature.

    With s(i, j) = cos(image i, text j) / temperature:

        L = -1/(2n) * sum over i of ( log softmax over j of s(i, j) at j = i + log softmax over j of s(j, i) at j = i )

    The learned parameter is `log_scale`, log(1 / temperature); before each step it is clamped to its range. It belongs
    in an optimizer group without weight decay.

    Args:
        temperature: at the start; 0.07 in the paper.
        min_temperature: lower bound of the learned temperature; 0.01 in the paper.
        max_temperature: upper bound.
        learn_temperature: False keeps the temperature constant.

    Raises:
        ConfigInvalid: not 0 < min_temperature <= temperature <= max_temperature.
    """

    needs: ClassVar[Need] = "captions"

    def __init__(
        self,
        temperature: float = 0.07,
        min_temperature: float = 0.01,
        max_temperature: float = 1.0,
        learn_temperature: bool = True,
    ) -> None:
        super().__init__()
        require(min_temperature >= 1e-3, "min_temperature", min_temperature, "at least 0.001")
        require(max_temperature <= 100, "max_temperature", max_temperature, "at most 100")
        require(temperature >= min_temperature, "temperature", temperature, f"at least {min_temperature}, the smallest")
        require(temperature <= max_temperature, "temperature", temperature, f"at most {max_temperature}, the largest")
        self.min_log_scale, self.max_log_scale = -math.log(max_temperature), -math.log(min_temperature)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn_temperature)

    @override
    def compare(self, anchors: Embedded, references: Embedded) -> Outcome:
        """Return the mean loss of both directions; `accuracy` is the mean of the two directions' accuracies, too."""
        scale = self._scale().to(anchors.images.dtype)
        images, texts = anchors.images, required(anchors.texts)
        to_texts = images @ required(references.texts).T  # (n, m)
        to_images = texts @ references.images.T
        own = torch.arange(len(images), device=images.device)
        loss = (F.cross_entropy(scale * to_texts, own) + F.cross_entropy(scale * to_images, own)) / 2
        return Outcome(loss, {**_stats(to_texts, to_images, own), "temperature": 1 / scale.item()})

    @property
    @override
    def text_temperature(self) -> float | None:
        return 1 / self._scale().item()

    def _scale(self) -> Tensor:
        with torch.no_grad():  # the parameter itself: a clamp inside the graph would stop its gradient at the bound
            self.log_scale.clamp_(self.min_log_scale, self.max_log_scale)
        return self.log_scale.exp()


@torch.no_grad()
def _stats(to_texts: Tensor, to_images: Tensor, own: Tensor) -> dict[str, float]:
    """Return figures from the cosines (n, m) of both directions; a single pair has no negatives and no accuracy."""
    pairs = len(own)
    stats = {"positive_cosine": to_texts.diagonal().mean().item()}
    if to_texts.shape[1] > 1:
        others = to_texts.sum() - to_texts.diagonal().sum()
        stats["negative_cosine"] = (others / (to_texts.numel() - pairs)).item()
        both = [(cosines.argmax(1) == own).float().mean().item() for cosines in (to_texts, to_images)]
        stats["image_to_text_accuracy"], stats["text_to_image_accuracy"] = both
        stats["accuracy"] = sum(both) / 2
    return stats
