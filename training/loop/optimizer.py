"""AdamW with layer-wise learning rates, and the schedules of learning rate and input side over a run."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from training.network.stages import parameters_of, stages, text_parameters
from training.network.trainable import Trainable
from training.settings import Base, Optimizer

BETAS = (0.9, 0.98)
"""CLIP's (Radford et al. 2021, table 20)."""


def make_optimizer(trainable: Trainable, objective: nn.Module, base: Base, settings: Optimizer) -> torch.optim.AdamW:
    """Return AdamW with a group for each learning rate and weight decay; `peak` of a group is its peak rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, rate in _peak_rates(trainable, objective, base, settings):
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    param_groups = [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    return torch.optim.AdamW(param_groups, betas=BETAS, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, done: int, total: int, warmup: float) -> float:
    """Set the rate of a step: linear warm-up over a share of the steps, then half a cosine to zero.

    Args:
        optimizer: its groups have a `peak`.
        done: steps taken so far.
        total: of the whole run.
        warmup: share of `total`.

    Returns:
        The factor by which the peak rates were multiplied, in [0, 1].
    """
    warmup_steps = max(1, round(warmup * total))
    if done < warmup_steps:
        factor = (done + 1) / warmup_steps
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (done - warmup_steps) / max(1, total - warmup_steps)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return factor


def input_side(done: int, total: int, first: int, last: int) -> int:
    """Return the input's side at a step: it grows over three quarters of the run, in 16s (Tan and Le 2021).

    Args:
        done: steps taken so far.
        total: of the whole run.
        first: pixels at the start; 0 for no growth.
        last: pixels that the encoder takes.

    >>> [input_side(step, 100, 64, 128) for step in (0, 20, 40, 74, 75, 99)]
    [64, 80, 96, 112, 128, 128]
    """
    if not first:
        return last
    progress = min(1.0, done / (0.75 * total))
    return last if progress == 1 else min(last, first + int((last - first) * progress) // 16 * 16)


def _peak_rates(
    trainable: Trainable, objective: nn.Module, base: Base, settings: Optimizer
) -> Iterator[tuple[nn.Parameter, float]]:
    parts = stages(trainable.towers.image)
    for depth, stage in enumerate(reversed(parts)):
        is_new_head = depth == 0 and base.head > 0
        rate = settings.head_learning_rate if is_new_head else settings.learning_rate * settings.layer_decay**depth
        for parameter in parameters_of(stage):
            yield parameter, rate
    for parameter in text_parameters(trainable):
        yield parameter, settings.learning_rate
    for module in (objective, trainable.projector):
        for parameter in module.parameters() if module is not None else ():
            yield parameter, settings.head_learning_rate
