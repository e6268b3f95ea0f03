"""`python -m benchmarks.replicas`: memory of one and of two replicas over the same collection.

Generated vectors of `lite`'s width are imported. Each replica gets the same text queries, and its memory is read as the
kernel counts it (Linux's /proc). *PSS*, the proportional set size, divides each page by the number of processes that
map it: the sum over all replicas is what they occupy together.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np

from benchmarks.encoders import machine
from benchmarks.resident import MEGABYTE
from benchmarks.serving import serving

_DIM = 768
_INNER_DIM = 64
"""Dimensions in which the vectors differ most: embeddings of images have far fewer than their width."""
_QUERIES = 500


def make_collection(folder: Path, count: int) -> Path:
    """Import generated vectors into a collection of `lite`, with the index that `auto` chooses."""
    rng = np.random.default_rng(0)
    inner = rng.standard_normal((count, _INNER_DIM), dtype=np.float32)
    vectors = inner @ rng.standard_normal((_INNER_DIM, _DIM), dtype=np.float32)
    vectors += rng.standard_normal((count, _DIM), dtype=np.float32)
    np.save(folder / "vectors.npy", vectors.astype(np.float16))
    paths = [str(folder / "vectors.npy"), "--out", str(folder / "collection")]
    command = [sys.executable, "-m", "cli.main", "import", *paths, "--encoder", "lite"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return folder / "collection"


def proportional(pid: int) -> dict[str, int]:
    """Return a process's counters of /proc/PID/smaps_rollup in bytes, such as `Pss`, `Pss_Anon` and `Rss`."""
    lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]
    return {name: 1024 * int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}


def send_queries(port: int) -> None:
    """Send text queries, which reach every list of the index."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for number in range(_QUERIES):
            client.post("/v1/search/text", json={"text": f"image {number}", "limit": 50}).raise_for_status()


def row(name: str, counters: Sequence[dict[str, int]]) -> str:
    """Return a row of the table: sums over replicas in MB."""
    sums = [sum(each[key] for each in counters) / MEGABYTE for key in ("Rss", "Pss", "Pss_Anon", "Pss_File")]
    return f"| {name} | " + " | ".join(f"{value:,.0f}" for value in sums) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="number of vectors")
    count = parser.parse_args(arguments).n
    print(f"{machine()}; {count:,} vectors of {_DIM} dimensions; MB\n")
    print("| replicas | resident | PSS | its own memory | mapped files |\n| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        collection, pids = make_collection(Path(folder), count), list[int]()
        for number in ("one", "two"):
            port, pid = stack.enter_context(serving(collection))
            send_queries(port)
            pids.append(pid)
            print(row(number, [proportional(each) for each in pids]), flush=True)


if __name__ == "__main__":
    main()
