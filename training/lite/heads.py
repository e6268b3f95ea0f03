"""Training of `lite`'s two small heads on frozen features, with InfoNCE on captions and class names.

Each step samples photographs (a random view, a random caption) and classes (a pseudo photograph, a random text). The
loss compares every image with every text. The module reads features and returns tensors; it accesses no files.

Dimension letters: n photographs in a step, m classes in a step, f image features, s sentence channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lookalike.encoders.lite.constants import CLASSES, POOLED
from lookalike.encoders.lite.heads import ImageHead, TextHead
from training.lite.classes import pseudo_features
from training.lite.config import LiteConfig
from training.lite.losses import info_nce

BETAS = (0.9, 0.98)  # CLIP's
MIN_SPREAD = 1e-2  # three sentence channels never vary: scaled by their noise they would dominate the rest


@dataclass(frozen=True, slots=True)
class LiteData:
    """The training data, as frozen features.

    Attributes:
        views: (v, N, f), v views of N photographs.
        captions: sentence vectors of photograph i's captions, (c_i, s) each, c_i >= 1.
        class_prompts: sentence vectors of class k's texts, (p_k, s) each, 1000 of them.
        class_vectors: (1000, s), see `training.lite.classes.class_vectors`.
        class_mean: (s,), what was subtracted from them.
        classifier_weight: (1000, 1280).
        classifier_bias: (1000,).
    """

    views: Tensor
    captions: list[Tensor]
    class_prompts: list[Tensor]
    class_vectors: Tensor
    class_mean: Tensor
    classifier_weight: Tensor
    classifier_bias: Tensor


@dataclass(frozen=True, slots=True)
class HeadStep:
    """The figures of one step; `number` counts from 1 to `total`."""

    number: int
    total: int
    epoch: int
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
    count = data.views.shape[1]
    total, number = config.epochs * math.ceil(count / config.batch_size), 0
    for epoch in range(config.epochs):
        for rows in torch.split(torch.randperm(count, generator=draw), config.batch_size):
            rate = _set_rate(optimizer, config, number, total)
            temperature = (-log_scale).exp().clamp(min=config.min_temperature)
            batch = _batch(data, heads, rows, config, draw)
            weights = torch.ones(len(batch[0]))
            weights[len(rows) :] = config.class_weight
            loss = _loss(heads, batch, data, temperature, weights)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            number += 1
            report(HeadStep(number, total, epoch + 1, loss.item(), temperature.item(), rate))
    heads.image.eval()
    heads.text.eval()
    return heads


def new_heads(data: LiteData, config: LiteConfig) -> Heads:
    """Return untrained heads that hold the data's means and spreads, in training mode."""
    image, text = ImageHead(config.dropout), TextHead(config.dropout)
    captions = torch.cat(data.captions)
    image.mean.copy_(data.views[0].mean(0))
    image.scale.copy_(1 / data.views[0].std(0).clamp(min=MIN_SPREAD))
    image.class_vectors.copy_(data.class_vectors)
    text.mean.copy_(captions.mean(0))
    text.scale.copy_(1 / captions.std(0).clamp(min=MIN_SPREAD))
    text.concept_mean.copy_(data.class_mean)
    for head in (image, text):
        head.weight.fill_(config.concept_weight)
    return Heads(image.train(), text.train())


def _batch(
    data: LiteData, heads: Heads, rows: Tensor, config: LiteConfig, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sample n photographs and m classes; return features (n + m, f) and sentence vectors (n + m, s)."""
    view = torch.randint(len(data.views), (len(rows),), generator=draw)
    features, texts = [data.views[view, rows]], [_pick([data.captions[i] for i in rows.tolist()], draw)]
    classes = torch.randperm(CLASSES, generator=draw)[: config.classes_per_step]
    if len(classes):
        features.append(_pseudo_photographs(data, heads, classes, config, draw))
        texts.append(_pick([data.class_prompts[k] for k in classes.tolist()], draw))
    return torch.cat(features), torch.cat(texts)


def _pseudo_photographs(
    data: LiteData, heads: Heads, classes: Tensor, config: LiteConfig, draw: torch.Generator
) -> Tensor:
    """Return features (m, f) of classes (m,); the stages' features are a photograph's: a classifier row has none."""
    photographs = torch.randint(data.views.shape[1], (len(classes),), generator=draw)
    features = data.views[0, photographs]
    pooled = pseudo_features(
        data.classifier_weight[classes],
        features[:, :POOLED],
        heads.image.mean[:POOLED],
        1 / heads.image.scale[:POOLED],
        scale=config.class_scale,
        noise=config.class_noise,
    )
    return torch.cat([pooled, features[:, POOLED:]], dim=1)


def _loss(heads: Heads, batch: tuple[Tensor, Tensor], data: LiteData, temperature: Tensor, weights: Tensor) -> Tensor:
    features, texts = batch
    logits = features[:, :POOLED] @ data.classifier_weight.T + data.classifier_bias
    with torch.autocast("cpu", torch.bfloat16):  # four times as fast where the CPU has AMX; weights stay float32
        images, words = heads.image(features, logits), heads.text(texts)
    return info_nce(images.float(), words.float(), temperature, weights)


def _pick(groups: list[Tensor], draw: torch.Generator) -> Tensor:
    """Return one random row of each group."""
    chance = torch.rand(len(groups), generator=draw).tolist()
    return torch.stack([group[int(c * len(group))] for group, c in zip(groups, chance, strict=True)])


def _optimizer(heads: Heads, log_scale: nn.Parameter, config: LiteConfig) -> torch.optim.AdamW:
    weights = [p for head in (heads.image, heads.text) for p in head.parameters()]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in weights if p.ndim < 2] + [log_scale], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS)


def _set_rate(optimizer: torch.optim.Optimizer, config: LiteConfig, done: int, total: int) -> float:
    """Set the learning rate of a step: linear warm-up, then half a cosine down to zero."""
    warmup = min(1.0, (done + 1) / max(1, config.warmup_steps))
    rate = config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * done / total))
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
