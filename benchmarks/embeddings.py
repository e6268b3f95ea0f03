"""`python -m benchmarks.embeddings COLLECTION`: texts per second of `POST /v1/embeddings` beside the encoder alone.

`lookalike serve` runs as a separate process. Clients send lists of texts that all differ, and ask for base64, as
OpenAI's client does; they share the cores with the service. The encoder alone gets the same texts in the same lists, on
as many threads as it can use. Both are measured in turn, in several rounds; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import numpy as np

from benchmarks.encoders import machine
from benchmarks.serving import serving
from lookalike.bootstrap import open_searcher
from lookalike.collection import open_collection
from lookalike.search import Searcher
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32

_WORDS = ("red", "blue", "dog", "cat", "car", "street", "beach", "snow", "child", "woman", "man", "two", "three")


def lists_of_texts(size: int) -> Iterator[list[str]]:
    """Yield lists of texts that all differ."""
    numbers = count()
    while True:
        yield [_text(next(numbers)) for _ in range(size)]


def _text(number: int) -> str:
    return f"a {_WORDS[number % 13]} and a {_WORDS[number // 13 % 13]} {number}"


def rate(work: Callable[[list[str]], object], size: int, workers: int, seconds: float) -> float:
    """Return the texts per second of workers that call `work` with lists of texts until the time is over."""
    lists, lock, done = lists_of_texts(size), threading.Lock(), [0] * workers
    end = time.perf_counter() + seconds

    def repeat(worker: int) -> float:
        while time.perf_counter() < end:
            with lock:
                texts = next(lists)
            work(texts)
            done[worker] += len(texts)
        return time.perf_counter()

    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        finished = max(pool.map(repeat, range(workers)))
    return sum(done) / (finished - started)


def check(client: httpx.Client, url: str, searcher: Searcher, size: int) -> None:
    """Compare the service's embeddings with the encoder's own."""
    texts = next(lists_of_texts(size))
    cosines = (_embed(client, url, texts) * searcher.encode_texts(texts, Stopwatch())).sum(axis=1)
    if cosines.min() < 0.999:
        raise SystemExit(f"the service's embeddings differ from the encoder's: cosine {cosines.min():.4f}")


def _embed(client: httpx.Client, url: str, texts: list[str]) -> Float32:
    response = client.post(url, json={"input": texts, "encoding_format": "base64"})
    response.raise_for_status()
    rows = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in response.json()["data"]]
    return np.stack(rows).astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--texts", type=int, default=32, help="of each request")
    parser.add_argument("--seconds", type=float, default=8, help="of each case")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    searcher = open_searcher(open_collection(options.collection, verify=False))
    searcher.warm_up(options.texts)
    alone, served = list[float](), list[float]()
    with serving(options.collection) as (port, _), httpx.Client(timeout=60, trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/v1/embeddings"
        check(client, url, searcher, options.texts)
        for _ in range(options.rounds):
            threads = searcher.encoder.max_concurrent_batches
            encode = partial(searcher.encode_texts, stopwatch=Stopwatch())
            alone.append(rate(encode, options.texts, threads, options.seconds))
            served.append(rate(partial(_embed, client, url), options.texts, options.clients, options.seconds))
    print(machine())
    print("| system | texts/s | rounds |\n| --- | --- | --- |")
    for name, rates in (("the encoder alone", alone), (f"{options.clients} clients", served)):
        print(f"| {name} | {statistics.median(rates):.0f} | {', '.join(f'{each:.0f}' for each in rates)} |")
    print(f"ratio {statistics.median(served) / statistics.median(alone):.2f}")


if __name__ == "__main__":
    main()
