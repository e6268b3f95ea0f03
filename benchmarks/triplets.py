"""`python -m benchmarks.triplets`: the triplet loss in tensors beside nested loops and pytorch-metric-learning.

All compute the same number on the same batch of ten classes (checked in each round), in turn, several rounds over;
medians are reported. The loops get their distances as Python floats, so that they pay for looping and not for reading
tensors; they have no backward pass. "Mask" is the plain tensor way, a broadcast mask over all triplets; "sorted" is
what `training.objectives.triplet` does.
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
        """Nested loops' time over sorted tensors', both forward."""
        return self.loops_ms / self.sorted_ms


def run(batch: int, rounds: int) -> Figures:
    """Measure one batch size.

    Raises:
        ValueError: the contenders disagree.
    """
    torch.manual_seed(batch)
    rows = F.normalize(torch.randn(batch, WIDTH), dim=1)
    labels = torch.arange(batch) % CLASSES
    contenders: dict[str, Callable[[], float]] = {
        "loops": lambda: nested_loops(rows, labels),
        "mask": lambda: mask(rows, labels),
        "sorted": lambda: ranked(rows, labels),
        "mask_backward": lambda: mask(rows, labels, backward=True),
        "sorted_backward": lambda: ranked(rows, labels, backward=True),
        "library_backward": lambda: library(rows, labels),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        values = [_timed(call, times[name]) for name, call in contenders.items()]
        if max(values) - min(values) > 1e-5:
            raise ValueError(f"the contenders disagree at batch {batch}: {values}")
    medians = {f"{name}_ms": statistics.median(taken[1:]) for name, taken in times.items()}  # the first one warms up
    return Figures(batch, count_valid_triplets(labels), **medians)


def nested_loops(rows: Tensor, labels: Tensor) -> float:
    """The mean over triplets that cost something, as the formula reads."""
    far, names, total, active = (2 - 2 * rows @ rows.T).tolist(), labels.tolist(), 0.0, 0
    for a in range(len(names)):
        for p in range(len(names)):
            if p == a or names[p] != names[a]:
                continue
            for n in range(len(names)):
                if names[n] != names[a] and (cost := far[a][p] - far[a][n] + MARGIN) > 0:
                    total += cost
                    active += 1
    return total / max(1, active)


def mask(rows: Tensor, labels: Tensor, backward: bool = False) -> float:
    """All triplets at once under `valid_triplets`, a broadcast mask (batch, batch, batch)."""
    rows = rows.clone().requires_grad_(backward)
    far = 2 - 2 * rows @ rows.T
    costs = (far[:, :, None] - far[:, None, :] + MARGIN)[valid_triplets(labels)].clamp(min=0)
    loss = costs.sum() / (costs > 0).sum().clamp(min=1)
    if backward:
        loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def ranked(rows: Tensor, labels: Tensor, backward: bool = False) -> float:
    """`training.objectives.triplet`."""
    rows = rows.clone().requires_grad_(backward)
    loss = Triplet(MARGIN, "easy_excluded")(Embedded(rows, labels)).loss
    if backward:
        loss.backward()
    return float(loss.detach())


def library(rows: Tensor, labels: Tensor) -> float:
    """pytorch-metric-learning's miner and loss with the same distance, forward and backward."""
    rows = rows.clone().requires_grad_()
    distance = distances.LpDistance(normalize_embeddings=False, power=2)
    miner = miners.TripletMarginMiner(MARGIN, "all", distance=distance)  # all that violate the margin
    loss = losses.TripletMarginLoss(MARGIN, distance=distance, reducer=reducers.MeanReducer())
    value = loss(rows, labels, miner(rows, labels))
    value.backward()
    return float(value.detach())


def _timed(call: Callable[[], float], taken: list[float]) -> float:
    started = time.perf_counter()
    value = call()
    taken.append((time.perf_counter() - started) * 1000)
    return value


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 256], help="batch sizes")
    parser.add_argument("--rounds", type=int, default=7, help="rounds over all contenders")
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
