"""`python -m benchmarks.ray_overhead`: two workers on a Ray cluster against the local runner, in turn.

The cluster is two machines on loopback with one core each, so that both runners have two cores. Rates leave the start
out, in which encoders are loaded and compiled; it is reported beside them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from statistics import median
from typing import Any

from benchmarks.encoders import machine
from benchmarks.indexing import default_source
from benchmarks.ray_cluster import two_machines


def run_index(source: str, *options: str) -> dict[str, Any]:
    """Index the source three times over into a new collection, and return the summary."""
    copies = [f"{name}={source}" for name in "abc"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cli.main", "index", *copies, "--out", f"{folder}/out", "--encoder", "lite"]
        done = subprocess.run([*command, *options, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def started_after(summary: dict[str, Any]) -> float:
    """Return the seconds that the encoding would have been shorter without its start."""
    return float(summary["encode_seconds"] - summary["encoded"] / summary["images_per_second"])


def main() -> None:
    """Run both runners in turn, and print a table of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=default_source(), help="what is indexed (default: Flickr8k's train.tar)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: 3)")
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {"local": [], "ray": []}
    with two_machines() as address:
        for _ in range(arguments.rounds):
            runs["local"].append(run_index(arguments.source))
            runs["ray"].append(run_index(arguments.source, "--runner", "ray", "--address", address))
    rates = {name: median(run["images_per_second"] for run in several) for name, several in runs.items()}
    pairs = zip(runs["local"], runs["ray"], strict=True)
    overhead = median(local["images_per_second"] / ray["images_per_second"] - 1 for local, ray in pairs)
    first = runs["ray"][0]
    print(f"{machine()}; {first['encoded']:,} images; {first['engine']}\n")
    print("| runner | images/s | start, s | encoding, s |\n| --- | ---: | ---: | ---: |")
    for name, several in runs.items():
        start = median(map(started_after, several))
        seconds = median(run["encode_seconds"] for run in several)
        print(f"| {name} | {rates[name]:,.0f} | {start:.1f} | {seconds:.1f} |")
    print(f"\noverhead {overhead:.1%} (limit 25 %); on the cluster: {first['images_by_machine']}")


if __name__ == "__main__":
    main()
