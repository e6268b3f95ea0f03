"""The validation figure of a model, by which the best weights of a run are selected.

    labels      Precision@1, each image among the others (Musgrave et al. 2020)
    captions    mean of R@1 text to image and image to text
    neither     Precision@1, two views of each image being its class

Dimension letters: m validation images, d joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.captions import caption_ranks
from evaluation.datasets import Example
from evaluation.embedded_set import embed
from evaluation.labels import label_scores
from evaluation.views import two_views
from lookalike.encoders.dual_encoder import unit_rows
from lookalike.encoders.protocol import Encoder
from lookalike.types import Float32, Int64
from training.data.validation_set import ValidationSet, label_numbers
from training.network.trainable import Trainable, inference_batch_size
from training.objectives.base import Embedded, Objective

Autocast = Callable[[], AbstractContextManager[None]]
"""Returns a context in which the towers compute in their precision."""


@dataclass(frozen=True, slots=True)
class Validator:
    """Measures models on a validation set.

    Attributes:
        data: the validation set.
        autocast: of the towers.
        device: of the towers.
    """

    data: ValidationSet
    autocast: Autocast
    device: torch.device

    def measure(self, model: Trainable) -> float:
        """Return the figure, in [0, 1]; the model is left in eval mode."""
        return self._figure(*self._outputs(model))

    def measure_with_loss(self, model: Trainable, objective: Objective, batch_size: int) -> tuple[float, float | None]:
        """Return the figure, and the objective's mean loss over `ValidationSet.batches`.

        Args:
            model: left in eval mode; its projector, if it has one, is applied before the loss.
            objective: the loss; None is returned for an objective on views where images have classes.
            batch_size: rows of a batch.
        """
        outputs, texts = self._outputs(model)
        figure = self._figure(outputs, texts)
        if objective.needs == "views" and not self.data.views:
            return figure, None
        with torch.no_grad():
            batches = [self._batch(model, rows, outputs, texts) for rows in self.data.batches(batch_size)]
            return figure, float(torch.stack([objective(batch).loss for batch in batches]).mean())

    def _batch(self, model: Trainable, rows: Int64, outputs: Float32, texts: Float32 | None) -> Embedded:
        """Return some rows as the objective takes them; of an image's captions the first."""
        images = model.project(torch.from_numpy(outputs[rows]).to(self.device))
        if texts is not None:
            first = np.unique(self.data.caption_rows, return_index=True)[1]
            return Embedded(images, texts=torch.from_numpy(texts[first[rows]]).to(self.device))
        labels = None if self.data.labels is None else torch.from_numpy(self.data.labels[rows]).to(self.device)
        return Embedded(images, labels)

    def _outputs(self, model: Trainable) -> tuple[Float32, Float32 | None]:
        """Return (m, d) of the image tower, not normalized, and unit rows of all captions."""
        model.modules().eval()
        texts = None if self.data.captions is None else self._texts(model)
        return self._images(model), texts

    def _figure(self, outputs: Float32, texts: Float32 | None) -> float:
        images = unit_rows(outputs)
        if texts is not None:
            return _caption_recall(images, texts, self.data.caption_rows)
        if self.data.labels is None:
            raise ValueError("validation images have classes, captions or views")
        return _precision_at_1(images, self.data.labels)

    def _images(self, model: Trainable) -> Float32:
        parts, size = [], inference_batch_size(self.device)
        for start in range(0, len(self.data.pixels), size):
            pixels = torch.from_numpy(np.array(self.data.pixels[start : start + size])).to(self.device)
            with torch.inference_mode(), self.autocast():
                parts.append(_numpy(model.towers.image(pixels)))
        return np.concatenate(parts)

    def _texts(self, model: Trainable) -> Float32:
        """Return unit rows of all captions, those of the first image first."""
        texts = [text for captions in self.data.captions or [] for text in captions]
        parts, size = [], inference_batch_size(self.device)
        for start in range(0, len(texts), size):
            tokens = model.tokenize(texts[start : start + size], self.device)
            with torch.inference_mode(), self.autocast():
                parts.append(_numpy(model.encode_texts(tokens)))
        return unit_rows(np.concatenate(parts))


def measure_encoder(encoder: Encoder, examples: Sequence[Example], *, captions: bool) -> float:
    """Return the figure of any encoder on images that are not decoded yet.

    Args:
        encoder: any.
        examples: validation images.
        captions: whether captions are trained on.
    """
    if not captions and label_numbers(examples) is None:
        examples = two_views(examples)
    embedded = embed(encoder, examples)
    if captions:
        return _caption_recall(embedded.vectors[embedded.captioned], embedded.caption_vectors, embedded.owners)
    labels = label_numbers(embedded.examples)
    if labels is None:
        raise ValueError("images without classes have views")
    return _precision_at_1(embedded.vectors, labels)


def _precision_at_1(images: Float32, labels: Int64) -> float:
    return float(label_scores(images, labels)[0]["precision_at_1"].mean())


def _caption_recall(images: Float32, texts: Float32, caption_rows: Int64) -> float:
    return float(np.mean([(ranks == 1).mean() for ranks in caption_ranks(images, texts, caption_rows)]))


def _numpy(rows: Tensor) -> Float32:
    array: Float32 = rows.float().cpu().numpy()
    return array
