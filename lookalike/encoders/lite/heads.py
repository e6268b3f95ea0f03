"""The trained part of `lite`: what maps backbone features and sentence vectors into the joint space.

An embedding consists of weighted unit vectors side by side, and has unit norm itself:

    image: [ sqrt(1 - a) * j ; sqrt(a) * v (256) ]        j = [ sqrt(1 - w) * z (256) ; sqrt(w) * c (256) ]
    text:  [ j ; 0 ]

- z is trained by contrast (Radford et al. 2021).
- c is about concepts: for an image the mean of the class names' sentence vectors under the classifier's posterior
  (ConSE, Norouzi et al. 2014), for a text its own sentence vectors, both in their first principal components.
- v is the image's appearance: standardised features in their first principal components. Texts have none, so their
  scores for images are those of j times sqrt(1 - a).

A text has two sentence vectors. MiniLM's counts as far as it agrees with the multilingual one, so in a language that
MiniLM does not know it hardly counts.

Dimension letters: n rows, f = 1904 image features, s = 896 text features (384 of MiniLM, 512 of the USE), v = 1000
classes, c = 256 concept channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lookalike.encoders.lite.constants import (
    APPEARANCE,
    CLASSES,
    CONCEPT,
    CONCEPT_GAIN,
    CONCEPT_MINILM,
    CONCEPT_USE,
    CONTRASTIVE,
    IMAGE_FEATURES,
    IMAGE_HIDDEN,
    MINILM,
    TEXT_FEATURES,
    TEXT_HIDDEN,
    USE,
)


class ResidualHead(nn.Module):
    """A linear map plus a two-layer perceptron that starts at zero; dropout counts only while training."""

    def __init__(self, inputs: int, hidden: int, outputs: int = CONTRASTIVE, dropout: float = 0.0) -> None:
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
    appearance: Tensor
    weight: Tensor
    appearance_weight: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.project = ResidualHead(IMAGE_FEATURES + CONCEPT, IMAGE_HIDDEN, dropout=dropout)
        self.register_buffer("mean", torch.zeros(IMAGE_FEATURES))  # standardisation, from training images
        self.register_buffer("scale", torch.ones(IMAGE_FEATURES))
        self.register_buffer("class_vectors", torch.zeros(CLASSES, CONCEPT))  # unit rows
        self.register_buffer("appearance", torch.zeros(IMAGE_FEATURES, APPEARANCE))
        self.register_buffer("weight", torch.tensor(0.5))  # w
        self.register_buffer("appearance_weight", torch.tensor(0.5))  # a

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Features (n, f) and class logits (n, v) -> (n, 768), unit norm."""
        appearance = F.normalize((features - self.mean) * self.scale @ self.appearance, dim=-1)
        return _weighted(self.joint(features, logits), appearance, self.appearance_weight)

    def joint(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return j: features (n, f) and class logits (n, v) -> (n, 512), unit norm."""
        concept = F.normalize(logits.softmax(-1) @ self.class_vectors, dim=-1)
        inputs = torch.cat([(features - self.mean) * self.scale, concept * CONCEPT_GAIN], dim=-1)
        return _weighted(F.normalize(self.project(inputs), dim=-1), concept, self.weight)


class TextHead(nn.Module):
    """Sentence vectors -> the joint space."""

    mean: Tensor
    scale: Tensor
    minilm_concepts: Tensor
    use_concepts: Tensor
    minilm_center: Tensor
    minilm_of_use: Tensor
    agreement: Tensor
    weight: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.project = ResidualHead(TEXT_FEATURES, TEXT_HIDDEN, dropout=dropout)
        self.register_buffer("mean", torch.zeros(TEXT_FEATURES))
        self.register_buffer("scale", torch.ones(TEXT_FEATURES))
        self.register_buffer("minilm_concepts", torch.zeros(MINILM, CONCEPT_MINILM))
        self.register_buffer("use_concepts", torch.zeros(USE, CONCEPT_USE))
        self.register_buffer("minilm_center", torch.zeros(MINILM))  # mean of unit vectors
        self.register_buffer("minilm_of_use", torch.zeros(USE, MINILM))
        self.register_buffer("agreement", torch.tensor([0.25, 0.45]))  # MiniLM counts not at all, and fully
        self.register_buffer("weight", torch.tensor(0.5))

    def forward(self, features: Tensor) -> Tensor:
        """Text features (n, s), not normalised -> (n, 768), unit norm, the last 256 of them zero."""
        return F.pad(self.joint(features, self.share_of_minilm(features)), (0, APPEARANCE))

    def joint(self, features: Tensor, share: Tensor) -> Tensor:
        """Return j: text features (n, s), and how far MiniLM's count (n, 1) in [0, 1] -> (n, 512), unit norm."""
        inputs = (features - self.mean) * self.scale
        inputs = torch.cat([inputs[:, :MINILM] * share, inputs[:, MINILM:]], dim=-1)
        minilm = F.normalize(features[:, :MINILM] @ self.minilm_concepts, dim=-1)
        use = F.normalize(features[:, MINILM:] @ self.use_concepts, dim=-1)
        concept = F.normalize(torch.cat([minilm * share, use], dim=-1), dim=-1)
        return _weighted(F.normalize(self.project(inputs), dim=-1), concept, self.weight)

    def share_of_minilm(self, features: Tensor) -> Tensor:
        """Return how far MiniLM's vector counts, (n, s) -> (n, 1) in [0, 1].

        It is the cosine of that vector to the one that a linear map expects of the multilingual vector, from
        `agreement[0]` or less (0) to `agreement[1]` or more (1).
        """
        actual = F.normalize(features[:, :MINILM], dim=-1) - self.minilm_center
        expected = (features[:, MINILM:] - self.mean[MINILM:]) @ self.minilm_of_use
        cosine = (F.normalize(actual, dim=-1) * F.normalize(expected, dim=-1)).sum(-1, keepdim=True)
        low, high = self.agreement[0], self.agreement[1]
        share: Tensor = ((cosine - low) / (high - low)).clamp(0.0, 1.0)
        return share


def _weighted(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Return [sqrt(1 - weight) * first ; sqrt(weight) * second] of unit rows: unit rows again."""
    return torch.cat([first * (1 - weight).sqrt(), second * weight.sqrt()], dim=-1)
