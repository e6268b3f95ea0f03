"""SimCLR's loss for images without labels: NT-Xent over two augmentations of each image."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from training.objectives.base import Embedded, Need, Objective, Outcome, require, required
from training.objectives.info_nce import info_nce_losses
from training.objectives.pairs import cosine_stats, masked_mean, pair_masks


class SimCLR(Objective):
    """NT-Xent (Chen, Kornblith, Norouzi and Hinton 2020, equation 1).

    The batch holds two views of each of n images, 2n rows in any order; with s(i, j) = cos(i, j) / temperature and p
    the other view of i's image:

        L = mean over i of -log( exp s(i, p) / sum over k != i of exp s(i, k) )

    No classes are used: `labels` numbers the images. Rows of a memory are negatives only (as in He et al. 2020,
    MoCo): an old view of the same image neither attracts nor repels.

    Args:
        temperature: above 0; the paper's best values are 0.1 on ImageNet and 0.5 on CIFAR-10.

    Raises:
        ConfigInvalid: the temperature is not above 0.
    """

    needs: ClassVar[Need] = "views"

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        require(1e-3 <= temperature <= 100, "temperature", temperature, "in [0.001, 100]")
        self.temperature = temperature

    @override
    def compare(self, anchors: Embedded, references: Embedded) -> Outcome:
        """Return the mean loss over views with a partner; `accuracy` is the share whose partner is the nearest row."""
        positives, negatives = pair_masks(required(anchors.labels), required(references.labels))
        positives[:, len(anchors) :] = False
        cosines = anchors.images @ references.images.T  # (2n, m)
        losses = info_nce_losses(cosines / self.temperature, negatives)
        stats = {**cosine_stats(cosines, positives, negatives), "temperature": self.temperature}
        return Outcome(masked_mean(losses, positives), stats)
