"""`python -m benchmarks.triplets`: the triplet loss in tensors, in nested loops and in pytorch-metric-learning.

All variants compute the same value on the same batch of ten classes (checked in each round), in turn, in several
rounds; medians are reported. The loops get distances as Python floats, so that reading tensors is not measured; they
have no backward pass. "Mask" uses a broadcast mask over all triplets; "sorted" is `training.objectives.triplet`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor
from torch.nn import functional as F

from benchmarks.encoders import machine
from training.objectives import Embedded
from training.objectives.triplet import Triplet, count_valid_triplets, valid_triplets

CLASSES, WIDTH, MARGIN = 10, 256, 0.2


@dataclass
class Figures:
    """Medians at one batch size, in milliseconds; loops have a forward pass only."""

    batch: int
    triplets: int
    loops_ms: float
    mask_ms: float
    sorted_ms: float
    mask_backward_ms: float
    sorted_backward_ms: float
    library_backward_ms: float

    @property
    def speed_up(self) -> float:
        """Return the time of nested loops over that of sorted tensors, forward pass only."""
        return self.loops_ms / self.sorted_ms


def run(batch: int, rounds: int) -> Figures:
    """Measure one batch size.

    Raises:
        ValueError: the variants disagree.
    """
    torch.manual_seed(batch)
    rows = F.normalize(torch.randn(batch, WIDTH), dim=1)
    labels = torch.arange(batch) % CLASSES
    variants: dict[str, Callable[[], float]] = {
        "loops": lambda: nested_loops(rows, labels),
        "mask": lambda: mask(rows, labels),
        "sorted": lambda: ranked(rows, labels),
        "mask_backward": lambda: mask(rows, labels, backward=True),
        "sorted_backward": lambda: ranked(rows, labels, backward=True),
        "library_backward": lambda: library(rows, labels),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        values = [_timed(call, times[name]) for name, call in variants.items()]
        if max(values) - min(values) > 1e-5:
            raise ValueError(f"the variants disagree at batch {batch}: {values}")
    medians = {f"{name}_ms": statistics.median(each[1:]) for name, each in times.items()}  # the first is a warm-up
    return Figures(batch, count_valid_triplets(labels), **medians)


def nested_loops(rows: Tensor, labels: Tensor) -> float:
    """Return the mean over triplets with a cost, as the formula reads."""
    distance, classes, total, active = (2 - 2 * rows @ rows.T).tolist(), labels.tolist(), 0.0, 0
    for a in range(len(classes)):
        for p in range(len(classes)):
            if p == a or classes[p] != classes[a]:
                continue
            for n in range(len(classes)):
                if classes[n] != classes[a] and (cost := distance[a][p] - distance[a][n] + MARGIN) > 0:
                    total += cost
                    active += 1
    return total / max(1, active)


def mask(rows: Tensor, labels: Tensor, backward: bool = False) -> float:
    """Return the same by `valid_triplets`, a broadcast mask (batch, batch, batch)."""
    rows = rows.clone().requires_grad_(backward)
    squared = 2 - 2 * rows @ rows.T
    costs = (squared[:, :, None] - squared[:, None, :] + MARGIN)[valid_triplets(labels)].clamp(min=0)
    loss = costs.sum() / (costs > 0).sum().clamp(min=1)
    if backward:
        loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def ranked(rows: Tensor, labels: Tensor, backward: bool = False) -> float:
    """Return the same by `training.objectives.triplet`."""
    rows = rows.clone().requires_grad_(backward)
    loss = Triplet(MARGIN, "easy_excluded")(Embedded(rows, labels)).loss
    if backward:
        loss.backward()
    return float(loss.detach())


def library(rows: Tensor, labels: Tensor) -> float:
    """Return the same by pytorch-metric-learning's miner and loss, forward and backward."""
    rows = rows.clone().requires_grad_()
    metric = distances.LpDistance(normalize_embeddings=False, power=2)
    miner = miners.TripletMarginMiner(MARGIN, "all", distance=metric)  # all that violate the margin
    loss = losses.TripletMarginLoss(MARGIN, distance=metric, reducer=reducers.MeanReducer())
    value = loss(rows, labels, miner(rows, labels))
    value.backward()
    return float(value.detach())


def _timed(call: Callable[[], float], times: list[float]) -> float:
    started = time.perf_counter()
    value = call()
    times.append((time.perf_counter() - started) * 1000)
    return value


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 256], help="batch sizes")
    parser.add_argument("--rounds", type=int, default=7, help="rounds over all variants")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures = [run(batch, options.rounds) for batch in options.batches]
    if options.json:
        records = [asdict(f) | {"speed_up": f.speed_up} for f in figures]
        print(json.dumps({"machine": machine(), "classes": CLASSES, "width": WIDTH, "batches": records}))
        return
    print(f"triplets of {CLASSES} classes, {WIDTH} wide: {machine()}\n")
    print(
        "| batch | valid triplets | nested loops, ms | mask | sorted | loops / sorted | forward and backward: mask ",
        end="",
    )
    print("| sorted | pytorch-metric-learning |")
    print("| ---: " * 9 + "|")
    for f in figures:
        print(
            f"| {f.batch} | {f.triplets:,} | {f.loops_ms:.0f} | {f.mask_ms:.1f} | {f.sorted_ms:.1f} | {f.speed_up:.0f} "
            f"| {f.mask_backward_ms:.1f} | {f.sorted_backward_ms:.1f} | {f.library_backward_ms:.1f} |"
        )


if __name__ == "__main__":
    main()
