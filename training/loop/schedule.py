"""Which weights learn how fast: freezing, layer-wise rates, and the course of the learning rate over the run."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from training.network.model import Trainable, parameters_of, stages
from training.settings import Base, Optimizer

BETAS = (0.9, 0.98)
"""CLIP's (Radford et al. 2021, table 20)."""


def freeze(trainable: Trainable, base: Base) -> list[nn.Module]:
    """Stops gradients of what stays as it is; returns the modules that have to stay in eval mode, too."""
    still: list[nn.Module] = []
    parts = stages(trainable.towers.image)
    for stage in parts[: round(base.freeze * len(parts))]:
        for parameter in parameters_of(stage):
            parameter.requires_grad_(False)
        still += [part for part in stage if isinstance(part, nn.Module)]
    if base.freeze_text:
        head = {id(parameter) for parameter in getattr(trainable.towers.text, "head", nn.Module()).parameters()}
        for parameter in text_parameters(trainable):
            parameter.requires_grad_(id(parameter) in head)
        still += filter(None, [getattr(trainable.towers.text, "bert", None)])
    return still


def text_parameters(trainable: Trainable) -> list[nn.Parameter]:
    """Those of the text tower that the image tower does not hold as well: CLIP's halves are cut from one model."""
    if trainable.towers.text is None:
        return []
    shared = {id(parameter) for parameter in trainable.towers.image.parameters()}
    return [parameter for parameter in trainable.towers.text.parameters() if id(parameter) not in shared]


def make_optimizer(trainable: Trainable, objective: nn.Module, base: Base, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW with a group for each learning rate and weight decay; each group keeps its peak as `peak`."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, rate in _rates(trainable, objective, base, settings):
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    listed = [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    return torch.optim.AdamW(listed, betas=BETAS, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, done: int, total: int, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then half a cosine to zero; returns the factor, in [0, 1].

    Args:
        optimizer: its groups carry `peak`.
        done: steps taken so far.
        total: of the whole run.
        warmup: share of `total`.
    """
    rising = max(1, round(warmup * total))
    if done < rising:
        factor = (done + 1) / rising
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (done - rising) / max(1, total - rising)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return factor


def side_at(done: int, total: int, first: int, last: int) -> int:
    """Side of the input at a step: from `first` to `last` over three quarters of the run, in 16s (Tan and Le 2021).

    Args:
        done: steps taken so far.
        total: of the whole run.
        first: pixels at the beginning; 0: no growth.
        last: pixels that the encoder takes.

    >>> [side_at(step, 100, 64, 128) for step in (0, 20, 40, 74, 75, 99)]
    [64, 80, 96, 112, 128, 128]
    """
    if not first:
        return last
    reached = min(1.0, done / (0.75 * total))
    return last if reached == 1 else min(last, first + int((last - first) * reached) // 16 * 16)


def _rates(
    trainable: Trainable, objective: nn.Module, base: Base, settings: Optimizer
) -> Iterator[tuple[nn.Parameter, float]]:
    parts = stages(trainable.towers.image)
    for depth, stage in enumerate(reversed(parts)):
        new_head = depth == 0 and base.head > 0
        rate = settings.head_learning_rate if new_head else settings.learning_rate * settings.layer_decay**depth
        for parameter in parameters_of(stage):
            yield parameter, rate
    for parameter in text_parameters(trainable):
        yield parameter, settings.learning_rate
    for module in (objective, trainable.projector):
        for parameter in module.parameters() if module is not None else ():
            yield parameter, settings.head_learning_rate
