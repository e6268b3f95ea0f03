"""Training of `lite`'s two heads on frozen features, with InfoNCE on captions and class names.

Each step samples as many images of each set (a random view, a random caption) and classes (a pseudo image, a random
text). The loss compares every image with every text; pairs of equal texts are no negatives of each other. In a share
of the rows the text is without MiniLM's features, as a text in another language is. The module reads features and
returns tensors; it accesses no files.

Dimension letters: n images in a step, m classes in a step, f image features, s text features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lookalike.encoders.lite.constants import APPEARANCE, CLASSES, MINILM, POOLED
from lookalike.encoders.lite.heads import ImageHead, TextHead
from training.lite.classes import ConceptSpace, pseudo_features
from training.lite.config import LiteConfig
from training.lite.losses import info_nce

BETAS = (0.9, 0.98)  # CLIP's
MIN_SPREAD = 1e-2  # three channels of MiniLM never vary: scaled by their noise they would dominate the rest
MIN_USE_SPREAD = 5e-3  # of unit vectors with 512 channels
WHITENING = 0.25
"""Power of a component's variance that its scale is divided by: 0 keeps the variances, 0.5 makes them equal."""


@dataclass(frozen=True, slots=True)
class TextGroups:
    """The texts of each image or class.

    Attributes:
        features: (t_i, s) each, t_i >= 1.
        numbers: (t_i,) int64 each; equal texts have equal numbers, over all groups of a training run.
    """

    features: list[Tensor]
    numbers: list[Tensor]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A set of captioned images, as frozen features.

    Attributes:
        views: (v, N, f), v views of N images.
        captions: of each image.
    """

    views: Tensor
    captions: TextGroups


@dataclass(frozen=True, slots=True)
class LiteData:
    """The training data, as frozen features.

    Attributes:
        sets: one or more sets of captioned images, all with as many views.
        prompts: the texts of each of the 1000 classes.
        concepts: the space of the concept part.
        classifier_weight: (1000, 1280).
        classifier_bias: (1000,).
    """

    sets: list[TrainingSet]
    prompts: TextGroups
    concepts: ConceptSpace
    classifier_weight: Tensor
    classifier_bias: Tensor


@dataclass(frozen=True, slots=True)
class HeadStep:
    """The figures of one step; `number` counts from 1 to `total`."""

    number: int
    total: int
    loss: float
    temperature: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Heads:
    """The two heads, in eval mode once trained."""

    image: ImageHead
    text: TextHead

    def tensors(self) -> dict[str, Tensor]:
        """Return every weight as float16 under the names that `lookalike.encoders.lite.loading` reads."""
        both = (("image", self.image), ("text", self.text))
        return {f"{side}.{k}": v.half().contiguous() for side, head in both for k, v in head.state_dict().items()}


def train_heads(data: LiteData, config: LiteConfig, report: Callable[[HeadStep], None] = lambda step: None) -> Heads:
    """Train both heads; the same data, configuration, machine and thread count give the same bits.

    Args:
        data: frozen features.
        config: the hyper-parameters.
        report: called after every step.
    """
    torch.manual_seed(config.seed)
    draw = torch.Generator().manual_seed(config.seed)
    heads = new_heads(data, config)
    log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
    optimizer = _optimizer(heads, log_scale, config)
    orders = [_Order(images.views.shape[1], draw) for images in data.sets]
    for number in range(config.steps):
        rate = _set_rate(optimizer, config, number)
        temperature = (-log_scale).exp().clamp(min=config.min_temperature)
        loss = _loss(heads, _batch(data, heads, orders, config, draw), data, temperature)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        report(HeadStep(number + 1, config.steps, loss.item(), temperature.item(), rate))
    heads.image.eval()
    heads.text.eval()
    return heads


def new_heads(data: LiteData, config: LiteConfig) -> Heads:
    """Return untrained heads that hold what is computed of the data, in training mode."""
    image, text = ImageHead(config.dropout), TextHead(config.dropout)
    views = torch.cat([images.views[0] for images in data.sets])
    image.mean.copy_(views.mean(0))
    image.scale.copy_(1 / views.std(0).clamp(min=MIN_SPREAD))
    image.class_vectors.copy_(data.concepts.class_vectors)
    image.appearance.copy_(_appearance((views - image.mean) * image.scale))
    image.appearance_weight.fill_(config.appearance_weight)
    captions = torch.cat([rows for images in data.sets for rows in images.captions.features])
    spread = captions.std(0)
    text.mean.copy_(captions.mean(0))
    text.scale.copy_(1 / torch.cat([spread[:MINILM].clamp(min=MIN_SPREAD), spread[MINILM:].clamp(min=MIN_USE_SPREAD)]))
    text.minilm_concepts.copy_(data.concepts.minilm)
    text.use_concepts.copy_(data.concepts.use)
    text.minilm_center.copy_(F.normalize(captions[:, :MINILM], dim=-1).mean(0))
    text.minilm_of_use.copy_(_minilm_of_use(text, [captions, torch.cat(data.prompts.features)]))
    for head in (image, text):
        head.weight.fill_(config.concept_weight)
    return Heads(image.train(), text.train())


def _appearance(standardized: Tensor) -> Tensor:
    """Return the map of standardised features (N, f) to their first principal components, partly whitened: (f, 256)."""
    variances, directions = torch.linalg.eigh(standardized.T @ standardized / len(standardized))
    scales = variances[-APPEARANCE:].clamp(min=1e-6) ** -WHITENING
    scaled: Tensor = directions[:, -APPEARANCE:] * scales
    return scaled


def _minilm_of_use(head: TextHead, texts: Sequence[Tensor]) -> Tensor:
    """Return the least-squares map of the USE's vectors to MiniLM's, (512, 384); each group of texts counts alike."""
    squares, products = torch.zeros(1), torch.zeros(1)
    for rows in texts:
        expected = F.normalize(rows[:, :MINILM], dim=-1) - head.minilm_center
        centred = rows[:, MINILM:] - head.mean[MINILM:]
        squares = squares + centred.T @ centred / len(rows)
        products = products + centred.T @ F.normalize(expected, dim=-1) / len(rows)
    ridge = 1e-3 * squares.diagonal().mean() * torch.eye(len(squares))
    solution: Tensor = torch.linalg.solve(squares + ridge, products)
    return solution


class _Order:
    """Draws the rows of a set without replacement; starts anew when all have been drawn."""

    def __init__(self, count: int, draw: torch.Generator) -> None:
        self._count, self._draw = count, draw
        self._left = torch.zeros(0, dtype=torch.int64)

    def take(self, rows: int) -> Tensor:
        while len(self._left) < rows:
            self._left = torch.cat([self._left, torch.randperm(self._count, generator=self._draw)])
        taken, self._left = self._left[:rows], self._left[rows:]
        return taken


@dataclass(frozen=True, slots=True)
class _Batch:
    """The rows of a step.

    Attributes:
        images: (n + m, f).
        texts: (n + m, s).
        numbers: (n + m,), of the texts.
        weights: (n + m,), in the loss.
        share: (n + m, 1), how far MiniLM's features count.
    """

    images: Tensor
    texts: Tensor
    numbers: Tensor
    weights: Tensor
    share: Tensor


def _batch(data: LiteData, heads: Heads, orders: Sequence[_Order], config: LiteConfig, draw: torch.Generator) -> _Batch:
    """Sample images of every set and classes."""
    features, texts, weights = [], [], []
    for images, order, count in zip(data.sets, orders, config.images_per_step, strict=True):
        rows = order.take(count)
        view = torch.randint(len(images.views), (len(rows),), generator=draw)
        features.append(images.views[view, rows])
        texts.append(_pick(images.captions, rows, draw))
        weights.append(torch.ones(len(rows)))
    classes = torch.randperm(CLASSES, generator=draw)[: config.classes_per_step]
    if len(classes):
        features.append(_pseudo_images(data, heads, classes, config, draw))
        texts.append(_pick(data.prompts, classes, draw))
        weights.append(torch.full((len(classes),), config.class_weight))
    inputs = torch.cat(features)
    return _Batch(
        images=inputs,
        texts=torch.cat([rows for rows, _ in texts]),
        numbers=torch.cat([numbers for _, numbers in texts]),
        weights=torch.cat(weights),
        share=(torch.rand(len(inputs), 1, generator=draw) >= config.minilm_dropout).float(),
    )


def _pseudo_images(data: LiteData, heads: Heads, classes: Tensor, config: LiteConfig, draw: torch.Generator) -> Tensor:
    """Return features (m, f) of classes (m,); the stages' features are an image's: a classifier row has none."""
    views = data.sets[0].views[0]
    features = views[torch.randint(len(views), (len(classes),), generator=draw)]
    pooled = pseudo_features(
        data.classifier_weight[classes],
        features[:, :POOLED],
        heads.image.mean[:POOLED],
        1 / heads.image.scale[:POOLED],
        scale=config.class_scale,
        noise=config.class_noise,
    )
    return torch.cat([pooled, features[:, POOLED:]], dim=1)


def _loss(heads: Heads, batch: _Batch, data: LiteData, temperature: Tensor) -> Tensor:
    logits = batch.images[:, :POOLED] @ data.classifier_weight.T + data.classifier_bias
    with torch.autocast("cpu", torch.bfloat16):  # four times as fast where the CPU has AMX; weights stay float32
        images, words = heads.image.joint(batch.images, logits), heads.text.joint(batch.texts, batch.share)
    equal = batch.numbers[:, None] == batch.numbers
    return info_nce(images.float(), words.float(), temperature, batch.weights, equal)


def _pick(groups: TextGroups, rows: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the features (n, s) and numbers (n,) of a random text of each row's."""
    chance = torch.rand(len(rows), generator=draw).tolist()
    chosen = [(i, int(c * len(groups.numbers[i]))) for i, c in zip(rows.tolist(), chance, strict=True)]
    features = torch.stack([groups.features[i][k] for i, k in chosen])
    return features, torch.stack([groups.numbers[i][k] for i, k in chosen])


def _optimizer(heads: Heads, log_scale: nn.Parameter, config: LiteConfig) -> torch.optim.AdamW:
    weights = [p for head in (heads.image, heads.text) for p in head.parameters()]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in weights if p.ndim < 2] + [log_scale], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS)


def _set_rate(optimizer: torch.optim.Optimizer, config: LiteConfig, done: int) -> float:
    """Set the learning rate of a step: linear warm-up, then half a cosine down to zero."""
    warmup = min(1.0, (done + 1) / max(1, config.warmup_steps))
    rate = config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * done / config.steps))
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
