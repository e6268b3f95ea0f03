"""`python -m benchmarks.training_step`: the speed of a training step of EfficientNet-Lite0, torch's and ours.

Forward and backward pass of one batch in each variant in turn, over several rounds; medians are reported. `fp32` and
`bf16` are torch with its autocast alone. `ours` adds the gradients of depthwise convolutions of
`training.network.depthwise` and saves passes over memory with `training.network.memory_passes`. `+ OpenVINO` also runs
frozen stages with `training.network.frozen`, as a training run does. `base.freeze` describes frozen stages.
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
from training.bases.registry import load_base
from training.network.depthwise import DepthwiseGradients
from training.network.frozen import run_frozen_stages
from training.network.memory_passes import reduce_memory_passes
from training.network.stages import freeze
from training.network.trainable import Trainable
from training.run.allocator import keep_freed_memory
from training.settings import Base


@dataclass(frozen=True, slots=True)
class Variant:
    """How a step is computed.

    Attributes:
        name: in the table.
        half: whether it computes in bf16.
        ours: whether it uses this project's gradients and memory passes.
        frozen: whether OpenVINO runs frozen stages.
    """

    name: str
    half: bool = False
    ours: bool = False
    frozen: bool = False


VARIANTS = (
    Variant("fp32"),
    Variant("fp32, ours", ours=True),
    Variant("fp32, ours + OpenVINO", ours=True, frozen=True),
    Variant("bf16", half=True),
    Variant("bf16, ours", half=True, ours=True),
    Variant("bf16, ours + OpenVINO", half=True, ours=True, frozen=True),
)


def measure(size: int, frozen: float, batch: int, rounds: int, *, own_statistics: bool) -> list[float]:
    """Return the images/s of each variant, medians of the rounds.

    Args:
        size: side of the input, pixels.
        frozen: share of frozen stages.
        batch: images of a step.
        rounds: steps of each variant.
        own_statistics: whether to normalize by batch statistics instead of the base's.
    """
    pixels = torch.randint(0, 255, (batch, 3, size, size), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    steps = [_step(size, frozen, pixels, variant, own_statistics) for variant in VARIANTS]
    for step in steps:
        step()
    seconds: list[list[float]] = [[] for _ in VARIANTS]
    for _ in range(rounds):
        for step, times in zip(steps, seconds, strict=True):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
    return [batch / statistics.median(times) for times in seconds]


def _step(size: int, frozen: float, pixels: torch.Tensor, variant: Variant, own_statistics: bool) -> Callable[[], None]:
    base = Base(encoder="lite", head=128, size=size, freeze=frozen, freeze_norm=not own_statistics)
    model: Trainable = load_base(base, text=False)
    model.towers.image.to(memory_format=torch.channels_last)
    frozen_modules = freeze(model, base)
    model.modules().train(own_statistics)  # only batch normalization differs in this network
    for module in frozen_modules:
        module.eval()
    if variant.ours:
        reduce_memory_passes(model.towers.image)
    if variant.frozen:
        run_frozen_stages(model, frozen_modules, half=variant.half)

    def step() -> None:
        with ExitStack() as stack:
            stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=variant.half))
            stack.enter_context(DepthwiseGradients() if variant.ours else nullcontext())
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
    parser.add_argument("--own-statistics", action="store_true", help="normalize by batch statistics")
    options = parser.parse_args()
    keep_freed_memory()
    print(f"One step of EfficientNet-Lite0, batches of {options.batch}, images/s: {machine()}\n")
    print(f"| input, pixels | frozen | {' | '.join(variant.name for variant in VARIANTS)} |")
    print(f"| ---: | ---: |{' ---: |' * len(VARIANTS)}")
    for size in options.sizes:
        for frozen in options.frozen:
            rates = measure(size, frozen, options.batch, options.rounds, own_statistics=options.own_statistics)
            print(f"| {size} | {frozen:.0%} | {' | '.join(f'{rate:.0f}' for rate in rates)} |", flush=True)


if __name__ == "__main__":
    main()
