"""`python -m benchmarks.writes`: writes per second, and what they cost searches.

A writable service runs over a copy of the collection (by default, 100,000 generated vectors of `lite`), without
compactions. In one run it is measured

* how many images a second 8 clients write, beside searches by an image, decoding and encoding without a service, and
  the encoder alone;
* how many patches a second one client sends in batches of 100;
* the p99 of text searches by 8 clients, alone and beside 50 writes a second (30 patches, 10 embeddings, 10 deletions);
* the p50 of a single text search, before and after 10,000 items are written and 1 % of the collection is deleted.

wrk (Debian's package) sends images and searches.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from benchmarks.encoders import machine
from benchmarks.replicas import make_collection
from benchmarks.service import encoder_alone, load, lookalike_target, photograph
from benchmarks.serving import serving
from lookalike.bootstrap import open_searcher
from lookalike.collection import open_collection
from lookalike.cores import available_cores
from lookalike.prepared_image import prepare
from lookalike.search import Searcher

_PATCHES_PER_BATCH = 100
_WRITES_PER_SECOND = 50
_DELTA_ITEMS, _DELETED_SHARE = 10_000, 0.01
_PUT = """
local number = 0
local f = io.open("BODY", "rb")
local body = f:read("*a")
f:close()
request = function()
  number = number + 1
  return wrk.format("PUT", "/v1/items/written/" .. number .. ".jpg", {["Content-Type"] = "image/jpeg"}, body)
end
"""


def put_images(base: str, clients: int, seconds: int, folder: Path) -> float:
    """Return how many images a second the clients write."""
    (folder / "body").write_bytes(photograph())
    script = folder / "put.lua"
    script.write_text(_PUT.replace("BODY", str(folder / "body")))
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), base]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in out, out
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert rate is not None, out
    return float(rate[1])


def prepared_and_encoded(searcher: Searcher, seconds: int) -> float:
    """Return how many image files a second are decoded and encoded without a service, in batches of the encoder's."""
    encoder, data = searcher.encoder, photograph()
    end, counts = time.perf_counter() + seconds, list[int]()

    def work(_: int) -> None:
        while time.perf_counter() < end:
            pixels = [prepare(data, encoder, searcher.limits.pixels).pixels for _ in range(encoder.image_batch_size)]
            encoder.encode_images(np.stack(pixels))
            counts.append(len(pixels))

    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(work, range(available_cores())))
    return sum(counts) / seconds


class Writes:
    """Operations on a collection's own items, in batches."""

    def __init__(self, client: httpx.Client, ids: Sequence[str], dim: int) -> None:
        self._client, self._ids, self._dim = client, ids, dim
        self._random = np.random.default_rng(0)
        self._number = 0

    def send(self, operations: Sequence[dict[str, object]]) -> None:
        """Send a batch; all of it must succeed."""
        response = self._client.post("/v1/items/batch", json={"operations": operations})
        response.raise_for_status()
        assert not response.json()["counts"]["failed"], response.json()

    def patches(self, count: int) -> list[dict[str, object]]:
        """Return patches of random items that are never deleted."""
        rows = self._random.integers(len(self._ids) // 2, len(self._ids), count)
        price = {"price": float(self._random.integers(1_000))}
        return [{"op": "patch", "id": self._ids[row], "metadata": price} for row in rows]

    def puts(self, count: int) -> list[dict[str, object]]:
        """Return puts of random embeddings under new ids."""
        self._number += count
        vectors = self._random.standard_normal((count, self._dim)).round(4).tolist()
        return [
            {"op": "put", "id": f"vector/{self._number - i}", "embedding": vector, "metadata": {"price": 1.5}}
            for i, vector in enumerate(vectors)
        ]

    def deletions(self, count: int) -> list[dict[str, object]]:
        """Return deletions of items that were not deleted before."""
        ids, self._ids = self._ids[:count], self._ids[count:]
        return [{"op": "delete", "id": each} for each in ids]


@contextmanager
def writing(writes: Writes) -> Iterator[None]:
    """Send 50 writes a second within the block, each second as ten requests."""
    stopped = threading.Event()
    count = 0

    def work() -> None:
        nonlocal count
        due = time.perf_counter()
        while not stopped.is_set():
            writes.send([*writes.patches(3), *writes.puts(1), *writes.deletions(1)])
            count += 5
            due += 5 / _WRITES_PER_SECOND
            stopped.wait(max(0.0, due - time.perf_counter()))

    thread = threading.Thread(target=work)
    started = time.perf_counter()
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        print(f"  ({count / (time.perf_counter() - started):.0f} writes/s meanwhile)", flush=True)


def single_query(client: httpx.Client, rounds: int = 300) -> float:
    """Return the median ms of text searches, one after the other."""
    times = []
    for number in range(rounds):
        body = json.dumps({"text": f"a dog in the snow {number}", "limit": 10})
        started = time.perf_counter()
        client.post("/v1/search/text", content=body, headers={"Content-Type": "application/json"}).raise_for_status()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def measure(root: Path, searcher: Searcher, seconds: int, rounds: int, folder: Path) -> None:
    """Measure a service over the collection and print the figures."""
    settings = {"LOOKALIKE_WRITABLE": "true", "LOOKALIKE_COMPACT_ITEMS": "0", "LOOKALIKE_COMPACT_SECONDS": "0"}
    ids = searcher.collection.metadata.column("id").to_pylist()
    with (
        serving(root, **settings) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        base = f"http://127.0.0.1:{port}"
        writes = Writes(client, ids, searcher.store.dim)
        target = lookalike_target(base)
        alone, beside = [], []
        for _ in range(rounds):
            alone.append(load(target, "text", 8, seconds, folder)[2])
            with writing(writes):
                beside.append(load(target, "text", 8, seconds, folder)[2])
        first, second = statistics.median(alone), statistics.median(beside)
        ratio = second / first
        print(f"p99 of text searches, 8 clients: {first:.1f} ms; beside writes {second:.1f} ms, {ratio:.2f} times")
        rates = [
            (
                put_images(base, 8, seconds, folder),
                load(target, "image", 8, seconds, folder)[0],
                prepared_and_encoded(searcher, seconds),
                encoder_alone(searcher, "image", 8, seconds)[0],
            )
            for _ in range(rounds)
        ]
        put, found, prepared, encoder = (statistics.median(each) for each in zip(*rates, strict=True))
        print(
            f"images written: {put:.0f}/s; searched by: {found:.0f}/s; decoded and encoded in one process: "
            f"{prepared:.0f}/s ({put / prepared:.2f}); encoder alone: {encoder:.0f}/s ({put / encoder:.2f})"
        )
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            writes.send(writes.patches(_PATCHES_PER_BATCH))
            count += _PATCHES_PER_BATCH
        print(f"patches in batches of {_PATCHES_PER_BATCH}: {count / (time.perf_counter() - started):.0f}/s")


def measure_delta(root: Path, searcher: Searcher, rounds: int) -> None:
    """Measure a single query over a collection without and with a delta, in turn, and print the figures."""
    settings = {"LOOKALIKE_WRITABLE": "true", "LOOKALIKE_COMPACT_ITEMS": "0", "LOOKALIKE_COMPACT_SECONDS": "0"}
    plain = root.with_name("plain")
    shutil.copytree(root, plain)
    ids = searcher.collection.metadata.column("id").to_pylist()
    with serving(plain) as (port, _), serving(root, **settings) as (live_port, _):
        urls = [f"http://127.0.0.1:{each}" for each in (port, live_port)]
        with httpx.Client(base_url=urls[0], timeout=60) as client, httpx.Client(base_url=urls[1], timeout=60) as live:
            writes = Writes(live, ids, searcher.store.dim)
            for _ in range(_DELTA_ITEMS // 100):
                writes.send(writes.puts(100))
            writes.send(writes.deletions(int(_DELETED_SHARE * len(ids))))
            figures = [(single_query(client), single_query(live)) for _ in range(rounds)]
    without, with_delta = (statistics.median(each) for each in zip(*figures, strict=True))
    ratio = statistics.median(b / a for a, b in figures)
    changed = f"{_DELTA_ITEMS:,} written and 1 % deleted"
    print(f"single query: {without:.2f} ms; {changed}: {with_delta:.2f} ms, {ratio:.2f} times")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path, nargs="?", help="of `lite`; 100,000 generated vectors by default")
    parser.add_argument("--seconds", type=int, default=8, help="of each case")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: apt install wrk")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        collection = options.collection or make_collection(folder, 100_000)
        searcher = open_searcher(open_collection(collection, verify=False))
        searcher.warm_up(32)
        print(f"{machine()}; {len(searcher.collection):,} items, {searcher.collection.manifest.store.kind}")
        first, second = (Path(shutil.copytree(collection, folder / each / "collection")) for each in "ab")
        measure_delta(first, searcher, options.rounds)
        measure(second, searcher, options.seconds, options.rounds, folder)


if __name__ == "__main__":
    main()
