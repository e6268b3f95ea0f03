"""`python -m benchmarks.gradcache`: the peak memory of one contrastive step, whole and in cached chunks.

Each way runs in a process of its own, whose peak is the system's own count (`ru_maxrss`; on a GPU, torch's), and leaves
its gradients, which are compared: cached gradients must be those of the whole batch. "Idle" is a process that has
loaded the network and the images and makes no step; what stands above it is the step's.
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
class Way:
    """One way to take a step; `chunk` 0 makes none."""

    name: str
    rows: int
    chunk: int


@dataclass(frozen=True)
class Figures:
    """What one process needed.

    Attributes:
        way: how the step was taken.
        peak_mb: the largest resident memory, or the GPU's.
        seconds: of the step, the process's first.
    """

    way: Way
    peak_mb: float
    seconds: float


def step(way: Way, pixels: int, device: str, out: Path) -> dict[str, float]:
    """Take one step in this process; leaves the gradients in `out`."""
    torch.manual_seed(0)
    tower = timm.create_model(ARCHITECTURE, num_classes=0).eval().to(device)  # eval: batch statistics are frozen
    require_rowwise(tower)
    images = torch.randn(way.rows, 3, pixels, pixels, device=device)
    labels = torch.arange(way.rows, device=device) % CLASSES
    started = time.perf_counter()
    if way.chunk:
        chunks = list(zip(torch.split(images, way.chunk), torch.split(labels, way.chunk), strict=True))
        _take(tower, chunks, whole=way.chunk == way.rows)
        torch.save([p.grad for p in tower.parameters()], out)
    return {"seconds": time.perf_counter() - started, "peak_mb": _peak(device)}


def _take(tower: nn.Module, chunks: list[tuple[Tensor, Tensor]], whole: bool) -> None:
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


def run(ways: list[Way], pixels: int, device: str, folder: Path) -> list[Figures]:
    """Each way in its own process."""
    figures = []
    for way in ways:
        command = [sys.executable, "-m", "benchmarks.gradcache", "--pixels", str(pixels), "--device", device]
        command += ["--step", str(folder / f"{way.name}.pt"), str(way.rows), str(way.chunk)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures.append(Figures(way, **json.loads(said)))
    return figures


def difference(first: Path, second: Path) -> tuple[float, float]:
    """The largest absolute difference between two steps' gradients, and the largest gradient."""
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
        way = Way("", int(options.step[1]), int(options.step[2]))
        print(json.dumps(step(way, options.pixels, options.device, Path(options.step[0]))))
        return
    rows, chunk = options.rows, options.chunk
    ways = [Way("idle", rows, 0), Way("small", chunk, chunk), Way("cached", rows, chunk), Way("whole", rows, rows)]
    with tempfile.TemporaryDirectory() as folder:
        figures = run(ways, options.pixels, options.device, Path(folder))
        apart, largest = difference(Path(folder, "cached.pt"), Path(folder, "whole.pt"))
    print(f"{ARCHITECTURE} at {options.pixels} pixels, InfoNCE, {options.device}: {machine()}\n")
    print("| one step | rows compared | rows in a chunk | peak, MB | above idle, MB | s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for f in figures:
        above = f.peak_mb - figures[0].peak_mb
        print(f"| {f.way.name} | {f.way.rows} | {f.way.chunk} | {f.peak_mb:.0f} | {above:.0f} | {f.seconds:.1f} |")
    print(f"\nGradients, cached against whole: at most {apart:.1e} apart, the largest is {largest:.1e}")


if __name__ == "__main__":
    main()
