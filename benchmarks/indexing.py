"""`python -m benchmarks.indexing`: the whole indexing job, cold, as a user runs it.

Every round is a separate process that indexes the same images into a new folder: decoding, thumbnails, encoding,
shards, store and manifest. `images_per_second` covers decoding and encoding; `whole_per_second` covers the whole job,
with loading and compiling the model. `cpu_ms` is the CPU time of an image, which other work on the machine disturbs
least. Medians of all rounds are reported. Arguments after `--` are passed to `lookalike index`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.encoders import machine

_FIGURES = ("images_per_second", "whole_per_second", "encoder_waited_seconds", "encode_seconds", "seconds", "cpu_ms")


def default_source() -> str:
    """Return the path of the 6,079 photographs in the shared data folder."""
    shared = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    return str(Path(os.environ.get("LOOKALIKE_TEST_DATA", shared)) / "flickr8k" / "train.tar")


def run_once(sources: list[str], encoder: str, extra: list[str]) -> dict[str, Any]:
    """Run the job once, cold; return its summary."""
    before = _cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "collection")
        command = [sys.executable, "-m", "cli.main", "index", *sources, "--out", out, "--encoder", encoder, "--json"]
        done = subprocess.run([*command, *extra], stdout=subprocess.PIPE, text=True, check=True)
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    summary["whole_per_second"] = round(summary["indexed"] / summary["seconds"], 1)
    summary["cpu_ms"] = round(1e3 * (_cpu_seconds() - before) / summary["indexed"], 2)
    return summary


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(sources: list[str], encoder: str, rounds: int, extra: list[str]) -> dict[str, Any]:
    """Return medians over several cold runs, and their largest resident memory, MB."""
    runs = [run_once(sources, encoder, extra) for _ in range(rounds)]
    figures = {name: statistics.median(run[name] for run in runs) for name in _FIGURES}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # Linux counts in KiB
    facts = {name: runs[-1][name] for name in ("encoder", "engine", "store", "indexed", "rejected")}
    return {"machine": machine(), "rounds": rounds, **facts, **figures, "peak_memory_mb": round(peak)}


def main() -> None:
    """Parse the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="what to index; the shared photographs if none are given")
    parser.add_argument("--encoder", default="lite", help="the encoder's name")
    parser.add_argument("--rounds", type=int, default=3, help="cold runs")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    own, extra = words[:end], words[end + 1 :]
    arguments = parser.parse_args(own)
    result = measure(arguments.sources or [default_source()], arguments.encoder, arguments.rounds, extra)
    if arguments.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:>24}  {value}")


if __name__ == "__main__":
    main()
