"""One figure on held-out images: what a run is chosen by, before the full evaluation says the rest.

    labels      Precision@1, each image among the others (Musgrave et al. 2020)
    captions    mean of R@1 text to image and image to text
    neither     the same, two views of each image being its class

Dimension letters: m held-out images, d joint width, S side of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evaluation.captions import caption_ranks
from evaluation.datasets import Example
from evaluation.embedded_set import embed
from evaluation.labels import label_scores
from evaluation.views import two_views
from lookalike.encoders.dual import unit_rows
from lookalike.encoders.protocol import Encoder
from lookalike.errors import SourceError
from lookalike.types import Float32, Int64, UInt8
from training.data.image_cache import cache_images
from training.network.model import Trainable
from training.objectives.base import Embedded, Objective

VIEWS = "view_recall_at_1"
Precision = Callable[[], AbstractContextManager[None]]
"""Enters the towers' precision."""


@dataclass(frozen=True)
class Validation:
    """Held-out images, decoded as the exported encoder will decode them.

    Attributes:
        figure: name of what is measured.
        pixels: (m, 3, S, S) uint8.
        labels: (m,) int64: classes or, where there are none, the images that the views show; None with captions.
        captions: of each image, where captions are trained on.
        views: whether rows 2i and 2i + 1 are views of image i.
    """

    figure: str
    pixels: UInt8
    labels: Int64 | None
    captions: list[tuple[str, ...]] | None
    views: bool = False

    @property
    def count(self) -> int:
        """Images, the two views of one counting once."""
        return len(self.pixels) // (2 if self.views else 1)

    def measure(self, model: Trainable, precision: Precision, device: torch.device) -> float:
        """The figure, in [0, 1]; the model is put into eval mode and left so."""
        return self._figure(*self._outputs(model, precision, device))

    def look(
        self, model: Trainable, precision: Precision, device: torch.device, objective: Objective, size: int
    ) -> tuple[float, float | None]:
        """The figure, and the mean of the objective's loss over batches of held-out rows, always the same ones.

        Args:
            model: put into eval mode; its projector, where it has one, stands between the tower and the loss.
            precision: of the towers.
            device: where they are.
            objective: what training minimises. Views are its matter alone: it has no loss here where classes are known.
            size: of a batch.
        """
        outputs, texts = self._outputs(model, precision, device)
        figure = self._figure(outputs, texts)
        if objective.needs == "views" and not self.views:
            return figure, None
        with torch.no_grad():
            batches = [self._batch(model, rows, outputs, texts, device) for rows in self._order(size)]
            return figure, float(torch.stack([objective(batch).loss for batch in batches]).mean())

    def _order(self, size: int) -> list[Int64]:
        """All rows in batches of about `size`; two views of an image stay together."""
        group = 2 if self.views else 1
        count = len(self.pixels) // group
        mixed = np.random.default_rng(0).permutation(count)
        parts = np.array_split(mixed, max(1, count * group // size))
        return [(part[:, None] * group + np.arange(group)).ravel() for part in parts]

    def _batch(
        self, model: Trainable, rows: Int64, outputs: Float32, texts: Float32 | None, device: torch.device
    ) -> Embedded:
        """Some of the held-out rows as the objective takes them; of captions each image's first one."""
        compared = model.compare(torch.from_numpy(outputs[rows]).to(device))
        if texts is not None:
            first = np.unique(self._owners(), return_index=True)[1]
            return Embedded(compared, texts=torch.from_numpy(texts[first[rows]]).to(device))
        labels = None if self.labels is None else torch.from_numpy(self.labels[rows]).to(device)
        return Embedded(compared, labels)

    def _outputs(self, model: Trainable, precision: Precision, device: torch.device) -> tuple[Float32, Float32 | None]:
        """(m, d) of the image tower, not normalised, and unit rows of all captions."""
        model.modules().eval()
        texts = None if self.captions is None else self._texts(model, precision, device)
        return self._images(model, precision, device), texts

    def _figure(self, outputs: Float32, texts: Float32 | None) -> float:
        images = unit_rows(outputs)
        if texts is not None:
            return _caption_figure(images, texts, self._owners())
        if self.labels is None:
            raise ValueError("held-out images have classes, captions or views")
        return float(label_scores(images, self.labels)[0]["precision_at_1"].mean())

    def _images(self, model: Trainable, precision: Precision, device: torch.device) -> Float32:
        parts, batch = [], batch_for(device)
        for start in range(0, len(self.pixels), batch):
            pixels = torch.from_numpy(np.array(self.pixels[start : start + batch])).to(device)
            with torch.inference_mode(), precision():
                parts.append(_numpy(model.towers.image(pixels)))
        return np.concatenate(parts)

    def _texts(self, model: Trainable, precision: Precision, device: torch.device) -> Float32:
        """Unit rows of all captions, those of the first image first."""
        texts = [text for of_one in self.captions or [] for text in of_one]
        parts, batch = [], batch_for(device)
        for start in range(0, len(texts), batch):
            tokens = tokenized(model, texts[start : start + batch], device)
            with torch.inference_mode(), precision():
                parts.append(_numpy(model.encode_texts(tokens)))
        return unit_rows(np.concatenate(parts))

    def _owners(self) -> Int64:
        """The image of each caption."""
        captions = self.captions or []
        return np.repeat(np.arange(len(captions)), [len(of_one) for of_one in captions])


def prepare_validation(
    examples: Sequence[Example],
    model: Trainable,
    folder: Path,
    progress: Callable[[int], object],
    *,
    captions: bool,
) -> Validation:
    """Decodes the held-out images.

    Args:
        examples: all of them.
        model: whose preprocessing is applied.
        folder: where the pixels are kept.
        progress: called with the number of images done since the last call.
        captions: whether captions are trained on.

    Raises:
        SourceError: no image can be read, or labels that no two images share.
    """
    views = not captions and label_rows(examples) is None
    if views:
        examples = two_views(examples)
    pixels, kept = cache_images(examples, model.preprocessing, folder, progress)
    read = [examples[row] for row in kept]
    if captions:
        with_text = [row for row, example in enumerate(read) if example.captions]
        if not with_text:
            raise SourceError(f"none of the {len(read):,} validation images has a caption")
        return Validation("recall_at_1", pixels[with_text], None, [read[row].captions for row in with_text])
    labels = label_rows(read)
    if labels is None or np.bincount(labels).max() < 2:
        raise SourceError(f"no two of the {len(read):,} validation images share a class: there is nothing to measure")
    return Validation(VIEWS if views else "precision_at_1", pixels, labels, None, views)


def measure_encoder(encoder: Encoder, examples: Sequence[Example], *, captions: bool) -> float:
    """The figure of `Validation`, of any encoder on images that are not decoded yet.

    Args:
        encoder: any.
        examples: held-out images.
        captions: whether captions are trained on.
    """
    if not captions and label_rows(examples) is None:
        examples = two_views(examples)
    found = embed(encoder, examples)
    if captions:
        return _caption_figure(found.vectors[found.captioned], found.caption_vectors, found.owners)
    labels = label_rows(found.examples)
    if labels is None:
        raise ValueError("images without classes have views")
    return float(label_scores(found.vectors, labels)[0]["precision_at_1"].mean())


def label_rows(examples: Sequence[Example]) -> Int64 | None:
    """Class names -> numbers in the order of the names; None unless every example has one."""
    names = sorted({example.label for example in examples if example.label is not None})
    if any(example.label is None for example in examples):
        return None
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[example.label or ""] for example in examples], np.int64)


def batch_for(device: torch.device) -> int:
    """Images or texts that a tower embeds at once; on a CPU few, so that what passes between layers stays in cache.

    EfficientNet-Lite0 at 160 pixels, two cores: 270 images/s in bf16 and 168 in fp32 by 16, 190 and 118 by 64.
    """
    return 16 if device.type == "cpu" else 64


def tokenized(model: Trainable, texts: Sequence[str], device: torch.device) -> list[Tensor]:
    """Texts -> the text tower's inputs."""
    if model.tokens is None:
        raise SourceError("this encoder takes no texts")
    return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in model.tokens(texts)]


def _caption_figure(images: Float32, texts: Float32, owners: Int64) -> float:
    return float(np.mean([(ranks == 1).mean() for ranks in caption_ranks(images, texts, owners)]))


def _numpy(rows: Tensor) -> Float32:
    array: Float32 = rows.float().cpu().numpy()
    return array
