"""`python -m benchmarks.training_step`: what a training step of `lite`'s network costs in fp32, in bf16, and in ours.

Forward and backward pass of one batch in each way in turn, several rounds over; medians are reported. "bf16" is torch's
autocast alone, "bf16, ours" the gradients of depthwise convolutions as
`training.depthwise` takes them. A stage is frozen as `base.freeze` says; normalisation keeps its statistics.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext

import torch

from benchmarks.encoders import machine
from training.depthwise import DepthwiseGradients
from training.heap import keep_freed_memory
from training.model import Trainable, load_base
from training.schedule import freeze
from training.settings import Base

WAYS = ("fp32", "bf16", "bf16, ours")


def measure(size: int, frozen: float, batch: int, rounds: int) -> dict[str, float]:
    """Way -> images/s, median of the rounds."""
    base = Base(encoder="lite", head=128, size=size, freeze=frozen)
    model = load_base(base, text=False)
    model.towers.image.to(memory_format=torch.channels_last)
    freeze(model, base)
    model.modules().eval()  # statistics stay as they are; lite's network has nothing else that differs
    pixels = torch.randint(0, 255, (batch, 3, size, size), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    steps = {way: _step(model, pixels, way) for way in WAYS}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, step in steps.items():
            begun = time.perf_counter()
            step()
            seconds[way].append(time.perf_counter() - begun)
    return {way: batch / statistics.median(times) for way, times in seconds.items()}


def _step(model: Trainable, pixels: torch.Tensor, way: str) -> Callable[[], None]:
    def step() -> None:
        with ExitStack() as stack:
            stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=way != "fp32"))
            stack.enter_context(DepthwiseGradients() if way == "bf16, ours" else nullcontext())
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
    options = parser.parse_args()
    keep_freed_memory()
    print(f"One step of EfficientNet-Lite0, batches of {options.batch}, images/s: {machine()}\n")
    print(f"| input, pixels | frozen | {' | '.join(WAYS)} | ours / fp32 |")
    print(f"| ---: | ---: |{' ---: |' * (len(WAYS) + 1)}")
    for size in options.sizes:
        for frozen in options.frozen:
            found = measure(size, frozen, options.batch, options.rounds)
            cells = " | ".join(f"{found[way]:.0f}" for way in WAYS)
            print(f"| {size} | {frozen:.0%} | {cells} | {found['bf16, ours'] / found['fp32']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
