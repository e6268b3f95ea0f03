"""`python -m benchmarks.gradcache`: the peak memory of a contrastive step, whole and in cached chunks.

Each variant runs in a separate process, whose peak the system counts (`ru_maxrss`; on a GPU, torch). Gradients are
compared: cached gradients must equal those of the whole batch. "Idle" is a process that has loaded the network and the
images but takes no step; memory above it is the step's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.encoders import machine
from training.loop.gradcache import cached_step, require_rowwise
from training.objectives import Embedded, make_objective

ARCHITECTURE, CLASSES = "efficientnet_lite0", 32
MEGABYTE = 2**20


@dataclass(frozen=True)
class Variant:
    """A way to compute a step: rows of the batch and of a chunk; `chunk` 0 takes no step."""

    name: str
    rows: int
    chunk: int


@dataclass(frozen=True)
class Figures:
    """Memory and time of one process.

    Attributes:
        variant: how the step was computed.
        peak_mb: peak resident memory, or the GPU's.
        seconds: of the step, the process's first.
    """

    variant: Variant
    peak_mb: float
    seconds: float


def step(variant: Variant, pixels: int, device: str, out: Path) -> dict[str, float]:
    """Take one step in this process, and save the gradients to `out`."""
    torch.manual_seed(0)
    tower = timm.create_model(ARCHITECTURE, num_classes=0).eval().to(device)  # eval: batch statistics are frozen
    require_rowwise(tower)
    images = torch.randn(variant.rows, 3, pixels, pixels, device=device)
    labels = torch.arange(variant.rows, device=device) % CLASSES
    started = time.perf_counter()
    if variant.chunk:
        chunks = list(zip(torch.split(images, variant.chunk), torch.split(labels, variant.chunk), strict=True))
        _take_step(tower, chunks, whole=variant.chunk == variant.rows)
        torch.save([p.grad for p in tower.parameters()], out)
    return {"seconds": time.perf_counter() - started, "peak_mb": _peak(device)}


def _take_step(tower: nn.Module, chunks: list[tuple[Tensor, Tensor]], whole: bool) -> None:
    def embed(chunk: tuple[Tensor, Tensor]) -> Embedded:
        return Embedded(F.normalize(tower(chunk[0]), dim=1), chunk[1])

    objective = make_objective("info_nce")
    if whole:
        objective(embed(chunks[0])).loss.backward()
    else:
        cached_step(embed, chunks, objective)


def _peak(device: str) -> float:
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / MEGABYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux


def run(variants: list[Variant], pixels: int, device: str, folder: Path) -> list[Figures]:
    """Run each variant in a separate process."""
    figures = []
    for variant in variants:
        command = [sys.executable, "-m", "benchmarks.gradcache", "--pixels", str(pixels), "--device", device]
        command += ["--step", str(folder / f"{variant.name}.pt"), str(variant.rows), str(variant.chunk)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures.append(Figures(variant, **json.loads(output)))
    return figures


def difference(first: Path, second: Path) -> tuple[float, float]:
    """Return the largest absolute difference between two steps' gradients, and the largest gradient."""
    pairs = list(zip(torch.load(first), torch.load(second), strict=True))
    return max(float((a - b).abs().max()) for a, b in pairs), max(float(a.abs().max()) for a, _ in pairs)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024, help="the effective batch")
    parser.add_argument("--chunk", type=int, default=64, help="images in a chunk")
    parser.add_argument("--pixels", type=int, default=64, help="side of an image")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--step", nargs=3, metavar=("OUT", "ROWS", "CHUNK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        variant = Variant("", int(options.step[1]), int(options.step[2]))
        print(json.dumps(step(variant, options.pixels, options.device, Path(options.step[0]))))
        return
    rows, chunk = options.rows, options.chunk
    variants = [
        Variant("idle", rows, 0),
        Variant("small", chunk, chunk),
        Variant("cached", rows, chunk),
        Variant("whole", rows, rows),
    ]
    with tempfile.TemporaryDirectory() as folder:
        figures = run(variants, options.pixels, options.device, Path(folder))
        error, largest = difference(Path(folder, "cached.pt"), Path(folder, "whole.pt"))
    print(f"{ARCHITECTURE} at {options.pixels} pixels, InfoNCE, {options.device}: {machine()}\n")
    print("| one step | rows compared | rows in a chunk | peak, MB | above idle, MB | s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for f in figures:
        above = f.peak_mb - figures[0].peak_mb
        variant = f.variant
        print(
            f"| {variant.name} | {variant.rows} | {variant.chunk} | {f.peak_mb:.0f} | {above:.0f} | {f.seconds:.1f} |"
        )
    print(f"\nGradients, cached against whole: differ by at most {error:.1e}; the largest is {largest:.1e}")


if __name__ == "__main__":
    main()
