"""The trained part of `lite`: what maps backbone features and sentence vectors into the joint space.

An embedding is two unit vectors side by side, weighted and again of unit norm:

    [ sqrt(1 - w) * z (256) ; sqrt(w) * c (384) ]

z is trained by contrast (Radford et al. 2021). c is a sentence vector: for an image the mean of the class names'
sentence vectors under the classifier's posterior (ConSE, Norouzi et al. 2014), for a text its own; from both
a share of the mean of all class names may be subtracted. So the score is
(1 - w) * cos(z, z') + w * cos(c, c'): z knows scenes and doings, c things that no training caption names.

Dimension letters: n rows, f = 1904 image features, s = 384 sentence channels, v = 1000 classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lookalike.encoders.lite.constants import (
    CLASSES,
    CONCEPT_GAIN,
    CONTRASTIVE,
    HIDDEN,
    IMAGE_FEATURES,
    SENTENCE,
)


class ResidualHead(nn.Module):
    """A linear map plus a two-layer perceptron that starts at zero; dropout counts only while training."""

    def __init__(self, inputs: int, outputs: int = CONTRASTIVE, hidden: int = HIDDEN, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.expand = nn.Linear(inputs, hidden)
        self.contract = nn.Linear(hidden, outputs)
        self.input_dropout = nn.Dropout(dropout / 2)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.contract.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, outputs)."""
        x = self.input_dropout(x)
        output: Tensor = self.linear(x) + self.contract(self.dropout(F.gelu(self.expand(x))))
        return output


class ImageHead(nn.Module):
    """Backbone features and class logits -> the joint space."""

    mean: Tensor
    scale: Tensor
    class_vectors: Tensor
    weight: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.project = ResidualHead(IMAGE_FEATURES + SENTENCE, dropout=dropout)
        self.register_buffer("mean", torch.zeros(IMAGE_FEATURES))  # standardisation, from training photographs
        self.register_buffer("scale", torch.ones(IMAGE_FEATURES))
        self.register_buffer("class_vectors", torch.zeros(CLASSES, SENTENCE))  # of class names: unit rows
        self.register_buffer("weight", torch.tensor(0.5))  # w

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Features (n, f) and class logits (n, v) -> (n, 640), unit norm."""
        concept = F.normalize(logits.softmax(-1) @ self.class_vectors, dim=-1)
        inputs = torch.cat([(features - self.mean) * self.scale, concept * CONCEPT_GAIN], dim=-1)
        return join(self.project(inputs), concept, self.weight)


class TextHead(nn.Module):
    """Sentence vectors -> the joint space."""

    mean: Tensor
    scale: Tensor
    concept_mean: Tensor
    weight: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.project = ResidualHead(SENTENCE, dropout=dropout)
        self.register_buffer("mean", torch.zeros(SENTENCE))
        self.register_buffer("scale", torch.ones(SENTENCE))
        self.register_buffer("concept_mean", torch.zeros(SENTENCE))  # what was subtracted from the class names' vectors
        self.register_buffer("weight", torch.tensor(0.5))

    def forward(self, sentence: Tensor) -> Tensor:
        """Mean-pooled sentence vectors (n, s), not normalised -> (n, 640), unit norm."""
        concept = F.normalize(F.normalize(sentence, dim=-1) - self.concept_mean, dim=-1)
        return join(self.project((sentence - self.mean) * self.scale), concept, self.weight)


def join(contrastive: Tensor, concept: Tensor, weight: Tensor) -> Tensor:
    """Return [sqrt(1 - w) * unit(contrastive) ; sqrt(w) * concept]: unit norm where `concept` has it."""
    parts = [F.normalize(contrastive, dim=-1) * (1 - weight).sqrt(), concept * weight.sqrt()]
    return torch.cat(parts, dim=-1)
