"""`python -m benchmarks.batch COLLECTION`: a batch of 100 texts against the same texts one by one.

`lookalike serve` runs as a separate process. The texts all differ. One connection sends them one by one, and as one
batch, in turn, for several rounds; medians are reported.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from app.api.schemas import MAX_BATCH
from benchmarks.encoders import machine
from benchmarks.serving import serving

_WORDS = ("dog", "cat", "car", "street", "beach", "snow", "child", "woman", "man", "bicycle")


def texts(number: int) -> list[str]:
    """Return the texts of a round."""
    return [f"a {_WORDS[i % 10]} and a {_WORDS[i // 10]} {number}" for i in range(MAX_BATCH)]


def one_by_one(client: httpx.Client, queries: Sequence[str]) -> None:
    """Send a request for each text."""
    for text in queries:
        client.post("/v1/search", json={"query": text}).raise_for_status()


def as_batch(client: httpx.Client, queries: Sequence[str]) -> None:
    """Send one request for all texts."""
    response = client.post("/v1/search/batch", json={"queries": [{"query": text} for text in queries]})
    assert all("results" in each for each in response.raise_for_status().json()["responses"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    ways: tuple[Callable[[httpx.Client, Sequence[str]], None], ...] = (one_by_one, as_batch)
    seconds: dict[str, list[float]] = {way.__name__: [] for way in ways}
    with (
        serving(options.collection) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client,
    ):
        for number in range(options.rounds + 1):  # the first round warms up
            for way in ways:
                started = time.perf_counter()
                way(client, texts(number))
                seconds[way.__name__].append(time.perf_counter() - started)
    alone, batch = (statistics.median(times[1:]) for times in seconds.values())
    print(f"{machine()}; medians of {options.rounds} rounds, {MAX_BATCH} texts over one connection")
    print(f"one by one {alone * 1e3:.0f} ms, as a batch {batch * 1e3:.0f} ms: {alone / batch:.2f} times as fast")


if __name__ == "__main__":
    main()
