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

    def measure(self, model: Trainable, autocast: Precision, device: torch.device) -> float:
        """The figure, in [0, 1]; the model is put into eval mode and left so."""
        model.modules().eval()
        images = self._images(model, autocast, device)
        if self.captions is not None:
            return _caption_figure(images, *self._texts(model, autocast, device))
        if self.labels is not None:
            return float(label_scores(images, self.labels)[0]["precision_at_1"].mean())
        mirrored = self._images(model, autocast, device, mirrored=True)
        return float(((mirrored @ images.T).argmax(1) == np.arange(len(images))).mean())

    def _images(
        self, model: Trainable, autocast: Precision, device: torch.device, *, mirrored: bool = False
    ) -> Float32:
        parts = []
        for start in range(0, len(self.pixels), _BATCH):
            batch = np.array(self.pixels[start : start + _BATCH])
            pixels = torch.from_numpy(batch[..., ::-1].copy() if mirrored else batch).to(device)
            with torch.inference_mode(), autocast():
                parts.append(_numpy(model.encode_images(pixels)))
        return unit_rows(np.concatenate(parts))

    def _texts(self, model: Trainable, autocast: Precision, device: torch.device) -> tuple[Float32, Int64]:
        captions = self.captions or []
        texts = [text for of_one in captions for text in of_one]
        owners = np.repeat(np.arange(len(captions)), [len(of_one) for of_one in captions])
        parts = []
        for start in range(0, len(texts), _BATCH):
            tokens = tokenized(model, texts[start : start + _BATCH], device)
            with torch.inference_mode(), autocast():
                parts.append(_numpy(model.encode_texts(tokens)))
        return unit_rows(np.concatenate(parts)), owners


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
