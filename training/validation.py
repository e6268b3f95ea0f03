"""One figure on held-out pictures: what a run is chosen by, before the full evaluation says the rest.

    labels      Precision@1, each picture among the others (Musgrave et al. 2020)
    captions    mean of R@1 text to image and image to text
    neither     share of pictures whose mirrored self is their nearest neighbour

Dimension letters: m held-out pictures, d joint width, S side of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from evaluation.captions import caption_ranks
from evaluation.datasets import Example
from evaluation.embedded import embed
from evaluation.labels import label_scores
from retrieval.encoders.dual import unit_rows
from retrieval.encoders.protocol import Encoder
from retrieval.errors import SourceError
from retrieval.images import decode
from retrieval.types import Float32, Int64, UInt8
from training.model import Trainable
from training.objectives.base import Embedded, Objective
from training.pictures import cache_pictures

_BATCH = 64
Precision = Callable[[], AbstractContextManager[None]]
"""Enters the towers' precision."""


@dataclass(frozen=True)
class Validation:
    """Held-out pictures, decoded as the exported encoder will decode them.

    Attributes:
        figure: name of what is measured.
        pixels: (m, 3, S, S) uint8.
        labels: (m,) int64, where classes are known.
        captions: of each picture, where captions are trained on.
    """

    figure: str
    pixels: UInt8
    labels: Int64 | None
    captions: list[tuple[str, ...]] | None

    def measure(self, model: Trainable, precision: Precision, device: torch.device) -> float:
        """The figure, in [0, 1]; the model is put into eval mode and left so."""
        model.modules().eval()
        outputs = self._images(model, precision, device)
        texts = None if self.captions is None else self._texts(model, precision, device)
        return self._figure(outputs, texts, lambda: self._images(model, precision, device, mirrored=True))

    def look(
        self, model: Trainable, precision: Precision, device: torch.device, objective: Objective, size: int
    ) -> tuple[float, float]:
        """The figure, and the mean of the objective's loss over batches of held-out pictures, always the same ones.

        Args:
            model: put into eval mode; its projector, where it has one, stands between the tower and the loss.
            precision: of the towers.
            device: where they are.
            objective: what training minimises; an objective of views meets each picture's mirror image.
            size: of a batch.
        """
        model.modules().eval()
        outputs = self._images(model, precision, device)
        texts = None if self.captions is None else self._texts(model, precision, device)
        mirrored = self._images(model, precision, device, mirrored=True) if objective.needs == "views" else None
        figure = self._figure(outputs, texts, lambda: self._images(model, precision, device, mirrored=True))
        order = np.random.default_rng(0).permutation(len(outputs))
        batches = np.array_split(order, max(1, len(order) // size))
        with torch.no_grad():
            losses = [objective(self._batch(model, rows, outputs, texts, mirrored, device)).loss for rows in batches]
        return figure, float(torch.stack(losses).mean())

    def _batch(
        self,
        model: Trainable,
        rows: Int64,
        outputs: Float32,
        texts: Float32 | None,
        mirrored: Float32 | None,
        device: torch.device,
    ) -> Embedded:
        """Some of the held-out pictures as the objective takes them; of captions each picture's first one."""

        def compared(of_all: Float32) -> Tensor:
            return model.compare(torch.from_numpy(of_all[rows]).to(device))

        if mirrored is not None:
            return Embedded(
                torch.cat([compared(outputs), compared(mirrored)]), torch.from_numpy(rows).to(device).repeat(2)
            )
        if texts is not None:
            first = np.unique(self._owners(), return_index=True)[1]
            return Embedded(compared(outputs), texts=torch.from_numpy(texts[first[rows]]).to(device))
        labels = None if self.labels is None else torch.from_numpy(self.labels[rows]).to(device)
        return Embedded(compared(outputs), labels)

    def _figure(self, outputs: Float32, texts: Float32 | None, mirror: Callable[[], Float32]) -> float:
        images = unit_rows(outputs)
        if texts is not None:
            return _caption_figure(images, texts, self._owners())
        if self.labels is not None:
            return float(label_scores(images, self.labels)[0]["precision_at_1"].mean())
        return float(((unit_rows(mirror()) @ images.T).argmax(1) == np.arange(len(images))).mean())

    def _images(
        self, model: Trainable, precision: Precision, device: torch.device, *, mirrored: bool = False
    ) -> Float32:
        """(m, d) what the image tower says, not normalised."""
        parts = []
        for start in range(0, len(self.pixels), _BATCH):
            batch = np.array(self.pixels[start : start + _BATCH])
            pixels = torch.from_numpy(batch[..., ::-1].copy() if mirrored else batch).to(device)
            with torch.inference_mode(), precision():
                parts.append(_numpy(model.towers.image(pixels)))
        return np.concatenate(parts)

    def _texts(self, model: Trainable, precision: Precision, device: torch.device) -> Float32:
        """Unit rows of all captions, those of the first picture first."""
        texts = [text for of_one in self.captions or [] for text in of_one]
        parts = []
        for start in range(0, len(texts), _BATCH):
            tokens = tokenized(model, texts[start : start + _BATCH], device)
            with torch.inference_mode(), precision():
                parts.append(_numpy(model.encode_texts(tokens)))
        return unit_rows(np.concatenate(parts))

    def _owners(self) -> Int64:
        """The picture of each caption."""
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
    """Decodes the held-out pictures.

    Args:
        examples: all of them.
        model: whose preprocessing is applied.
        folder: where the pixels are kept.
        progress: called with the number of pictures done since the last call.
        captions: whether captions are trained on.

    Raises:
        SourceError: no picture can be read, or labels that no two pictures share.
    """
    pixels, kept = cache_pictures(examples, model.preprocessing, folder, progress)
    read = [examples[row] for row in kept]
    if captions:
        with_text = [row for row, example in enumerate(read) if example.captions]
        if not with_text:
            raise SourceError(f"none of the {len(read):,} validation pictures has a caption")
        return Validation("recall_at_1", pixels[with_text], None, [read[row].captions for row in with_text])
    labels = label_rows(read)
    if labels is None:
        return Validation("mirror_recall_at_1", pixels, None, None)
    if np.bincount(labels).max() < 2:
        raise SourceError(f"no two of the {len(read):,} validation pictures share a class: there is nothing to measure")
    return Validation("precision_at_1", pixels, labels, None)


def measure_encoder(encoder: Encoder, examples: Sequence[Example], *, captions: bool) -> float:
    """The figure of `Validation`, of any encoder on pictures that are not decoded yet.

    Args:
        encoder: any.
        examples: held-out pictures.
        captions: whether captions are trained on.
    """
    found = embed(encoder, examples)
    if captions:
        return _caption_figure(found.vectors[found.captioned], found.caption_vectors, found.owners)
    labels = label_rows(found.examples)
    if labels is not None:
        return float(label_scores(found.vectors, labels)[0]["precision_at_1"].mean())
    pictures = [decode(example.load()).image for example in found.examples]
    mirrored = [encoder.encode_images(encoder.preprocess(ImageOps.mirror(picture))[None]) for picture in pictures]
    return float(((np.concatenate(mirrored) @ found.vectors.T).argmax(1) == np.arange(len(pictures))).mean())


def label_rows(examples: Sequence[Example]) -> Int64 | None:
    """Class names -> numbers in the order of the names; None unless every example has one."""
    names = sorted({example.label for example in examples if example.label is not None})
    if any(example.label is None for example in examples):
        return None
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[example.label or ""] for example in examples], np.int64)


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
