"""Texts about the thousand ImageNet classes, and pseudo photographs of them computed from the classifier's weights.

A classifier row is the direction of its class in feature space. A mean photograph moved in that direction replaces
photographs of the class, which are not available. Captions mostly name people and dogs; these pairs teach the heads the
other classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip import IMAGENET_CLASSNAMES
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor
from torch.nn import functional as F

from lookalike.encoders.lite.constants import CLASSES, CONCEPT_MINILM, CONCEPT_USE, MINILM

MAX_NAMES = 4

TEMPLATES = ("a {} in the picture", "there is a {} here", "a close-up of a {}", "many {}s")


@dataclass(frozen=True, slots=True)
class ClassTexts:
    """The texts of one class.

    Attributes:
        names: the curated name first, then WordNet's lemmas; at most four.
        gloss: name and WordNet's definition: "tench: freshwater dace-like game fish ...".
        prompts: all texts that training samples: the names first, then photo prompts, gloss, templates.
    """

    names: tuple[str, ...]
    gloss: str
    prompts: tuple[str, ...]


def class_texts() -> list[ClassTexts]:
    """Return the texts of all classes, in the classifier's order."""
    info = ImageNetInfo()
    return [_texts_of(index, info) for index in range(CLASSES)]


@dataclass(frozen=True, slots=True)
class ConceptSpace:
    """The space of the concept part: principal components of the classes' sentence vectors, for each text network.

    Attributes:
        class_vectors: (v, c) float32, unit rows: both networks' halves side by side.
        minilm: (384, c / 2), orthonormal columns.
        use: (512, c / 2), orthonormal columns.
    """

    class_vectors: Tensor
    minilm: Tensor
    use: Tensor


def concept_space(texts: list[ClassTexts], prompts: list[Tensor]) -> ConceptSpace:
    """Return the concept space.

    Args:
        texts: of all v classes.
        prompts: text features of each class's prompts, (p_k, s), in their order.
    """
    halves, components = [], []
    for part, width in ((slice(None, MINILM), CONCEPT_MINILM), (slice(MINILM, None), CONCEPT_USE)):
        vectors = _class_vectors(texts, [rows[:, part] for rows in prompts])
        directions = torch.linalg.svd(vectors, full_matrices=False).Vh[:width].T.contiguous()
        components.append(directions)
        halves.append(F.normalize(vectors @ directions, dim=-1))
    return ConceptSpace(F.normalize(torch.cat(halves, dim=-1), dim=-1), *components)


def _class_vectors(texts: list[ClassTexts], prompts: list[Tensor]) -> Tensor:
    """Return a unit sentence vector for each class: of its names and its gloss."""
    rows = []
    for text, vectors in zip(texts, prompts, strict=True):
        names = F.normalize(vectors[: len(text.names)], dim=-1).mean(0)
        gloss = vectors[text.prompts.index(text.gloss)]
        rows.append(F.normalize(names, dim=-1) + F.normalize(gloss, dim=-1))
    return F.normalize(torch.stack(rows), dim=-1)


def pseudo_features(
    rows: Tensor, photographs: Tensor, mean: Tensor, spread: Tensor, *, scale: float, noise: float
) -> Tensor:
    """Return pooled features that a photograph of each class might have.

        mean + scale * |spread| * row / |row| + noise * (photograph - mean)

    Args:
        rows: (n, 1280) classifier rows.
        photographs: (n, 1280) features of real photographs, any.
        mean: (1280,) of real features.
        spread: (1280,) standard deviation of real features.
        scale: length of the step, in lengths of `spread`.
        noise: share of the real photograph's deviation.

    Returns:
        (n, 1280).
    """
    step = F.normalize(rows, dim=-1) * (scale * spread.norm())
    features: Tensor = mean + step + noise * (photographs - mean)
    return features


def _texts_of(index: int, info: ImageNetInfo) -> ClassTexts:
    name = IMAGENET_CLASSNAMES[index]
    lemmas = [lemma.strip() for lemma in info.index_to_description(index).split(",")]
    names = tuple(dict.fromkeys([name, *lemmas]))[:MAX_NAMES]
    definition = info.index_to_description(index, detailed=True).split(": ", 1)[1]
    gloss = f"{name}: {definition}"
    photos = [f"a photo of a {lemma}" for lemma in names]
    others = [gloss, f"a photo of {definition}", *(template.format(name) for template in TEMPLATES)]
    return ClassTexts(names, gloss, (*names, *photos, *others))
