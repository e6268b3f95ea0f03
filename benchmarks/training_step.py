"""`python -m benchmarks.training_step`: what a training step of `lite`'s network costs in fp32, in bf16, and in ours.

Forward and backward pass of one batch in each way in turn, several rounds over; medians are reported. `fp32` and `bf16`
are torch's and its autocast's alone; `ours` takes the gradients of depthwise convolutions as
`training.network.depthwise` does and saves passes over memory as `training.network.memory_passes` does; `+ OpenVINO`
runs frozen stages as `training.network.frozen` does, and is what a training run takes. A stage is frozen as
`base.freeze` says.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch

from benchmarks.encoders import machine
from training.loop.schedule import freeze
from training.network.depthwise import DepthwiseGradients
from training.network.frozen import run_frozen_stages
from training.network.memory_passes import spare_passes
from training.network.model import Trainable, load_base
from training.run.allocator import keep_freed_memory
from training.settings import Base


@dataclass(frozen=True, slots=True)
class Way:
    """How a step is computed."""

    name: str
    half: bool = False
    ours: bool = False
    frozen: bool = False


WAYS = (
    Way("fp32"),
    Way("fp32, ours", ours=True),
    Way("fp32, ours + OpenVINO", ours=True, frozen=True),
    Way("bf16", half=True),
    Way("bf16, ours", half=True, ours=True),
    Way("bf16, ours + OpenVINO", half=True, ours=True, frozen=True),
)


def measure(size: int, frozen: float, batch: int, rounds: int, *, own_statistics: bool) -> list[float]:
    """Images/s of each way, medians of the rounds; normalised by each batch's statistics, or by the base's."""
    pixels = torch.randint(0, 255, (batch, 3, size, size), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    steps = [_step(size, frozen, pixels, way, own_statistics) for way in WAYS]
    for step in steps:
        step()
    seconds: list[list[float]] = [[] for _ in WAYS]
    for _ in range(rounds):
        for step, times in zip(steps, seconds, strict=True):
            begun = time.perf_counter()
            step()
            times.append(time.perf_counter() - begun)
    return [batch / statistics.median(times) for times in seconds]


def _step(size: int, frozen: float, pixels: torch.Tensor, way: Way, own_statistics: bool) -> Callable[[], None]:
    base = Base(encoder="lite", head=128, size=size, freeze=frozen, freeze_norm=not own_statistics)
    model: Trainable = load_base(base, text=False)
    model.towers.image.to(memory_format=torch.channels_last)
    still = freeze(model, base)
    model.modules().train(own_statistics)  # lite's network has nothing else that differs
    for module in still:
        module.eval()
    if way.ours:
        spare_passes(model.towers.image)
    if way.frozen:
        run_frozen_stages(model.towers.image, still, half=way.half)

    def step() -> None:
        with ExitStack() as stack:
            stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=way.half))
            stack.enter_context(DepthwiseGradients() if way.ours else nullcontext())
            rows = model.encode_images(pixels)
        (rows @ rows.T).square().mean().backward()  # type: ignore[no-untyped-call]
        model.modules().zero_grad()

    return step


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128, 160], help="sides of the input, pixels")
    parser.add_argument("--frozen", type=float, nargs="+", default=[0.0, 0.4], help="shares of frozen stages")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--own-statistics", action="store_true", help="normalise by each batch's, not by the base's")
    options = parser.parse_args()
    keep_freed_memory()
    print(f"One step of EfficientNet-Lite0, batches of {options.batch}, images/s: {machine()}\n")
    print(f"| input, pixels | frozen | {' | '.join(way.name for way in WAYS)} |")
    print(f"| ---: | ---: |{' ---: |' * len(WAYS)}")
    for size in options.sizes:
        for frozen in options.frozen:
            found = measure(size, frozen, options.batch, options.rounds, own_statistics=options.own_statistics)
            print(f"| {size} | {frozen:.0%} | {' | '.join(f'{rate:.0f}' for rate in found)} |", flush=True)


if __name__ == "__main__":
    main()
