"""`python -m benchmarks.overload COLLECTION`: three times the load that the service can handle, for five minutes.

The service runs as a separate process with its default limits. First 32 clients measure its capacity. Then queries are
sent at `--times` that rate, at fixed times, whether or not earlier ones have been answered (an open loop). One in ten
is an image. Two callers share the load: the greedy one sends two thirds of it, and its rate limit is the measured
capacity, with 429 beyond. Expected: only 200, 429 and 503; p99 of served queries below the deadline; constant memory;
and a response as fast as before within two seconds after the load ends. The load generator shares the cores with the
service, which makes the test harder. `--nginx` puts nginx in front, by `deploy/nginx-compose.conf`, as in a deployment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.encoders import machine
from benchmarks.nginx import compose_proxy
from benchmarks.service import photograph
from benchmarks.serving import serving

_MAX_CONNECTIONS = 8000  # more than the service queues, so that the load never waits for the service
_IMAGE_INTERVAL = 10  # every tenth query is an image
GREEDY, MODEST = "greedy-0123456789abcdef", "modest-0123456789abcdef"
_WORDS = [
    "red",
    "blue",
    "dog",
    "cat",
    "car",
    "street",
    "beach",
    "snow",
    "child",
    "woman",
    "man",
    "running",
    "sitting",
    "two",
    "three",
    "small",
]


@dataclass
class Record:
    """Start, status (0: none) and seconds of each request, and the service's resident bytes over time."""

    requests: list[tuple[float, int, float]] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)

    def seconds(self, *statuses: int) -> list[float]:
        """Return the seconds of the requests with one of these statuses."""
        return [seconds for _, status, seconds in self.requests if status in statuses]


class Client:
    """A minimal HTTP/1.1 client with persistent connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._image = photograph()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._free = asyncio.Semaphore(_MAX_CONNECTIONS)

    async def search(self, number: int, key: str) -> int:
        """Send a query; return its status, 0 where the connection broke."""
        kind, media_type, body = "text", "application/json", json.dumps({"text": _text(number), "limit": 10}).encode()
        if number % _IMAGE_INTERVAL == 0:
            kind, media_type, body = "image", "image/jpeg", self._image
        head = (
            f"POST /v1/search/{kind} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\n"
            f"X-API-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with self._free:
            status = 0
            while not status and self._idle:  # the service may have closed an idle connection: try the next
                status = await self._send(*self._idle.pop(), head.encode() + body)
            try:
                return status or await self._send(
                    *await asyncio.open_connection("127.0.0.1", self._port), head.encode() + body
                )
            except OSError:
                return 0

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return 0
        self._idle.append((reader, writer))
        return int(head[9:12])


def _text(number: int) -> str:
    return " ".join(_WORDS[number // 7**place % len(_WORDS)] for place in range(4)) + f" {number}"


async def capacity(client: Client, seconds: float) -> tuple[float, float]:
    """Return queries/s with 32 clients, and the median seconds of single queries before."""
    singles = []
    for number in range(100):
        started = time.perf_counter()
        await client.search(number, MODEST)
        singles.append(time.perf_counter() - started)
    end, done = time.perf_counter() + seconds, 0

    async def search_repeatedly(first: int) -> None:
        nonlocal done
        number = first
        while time.perf_counter() < end:
            status = await client.search(number, MODEST)
            done += status == 200
            number += 32

    await asyncio.gather(*(search_repeatedly(1000 + start) for start in range(32)))
    return done / seconds, float(np.median(singles))


async def overload(client: Client, rate: float, seconds: float, pid: int) -> Record:
    """Send `rate` queries a second, and record the outcome of each."""
    record, started = Record(), time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()

    async def search_once(number: int) -> None:
        start = time.perf_counter()
        status = await client.search(number, MODEST if number % 3 == 0 else GREEDY)
        record.requests.append((start - started, status, time.perf_counter() - start))

    sent = 0
    while (now := time.perf_counter() - started) < seconds:
        while sent < now * rate:
            task = asyncio.create_task(search_once(sent))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        if not record.resident or now - record.resident[-1][0] > 1:
            record.resident.append((now, _resident(pid)))
        await asyncio.sleep(0.01)
    return record


async def recovery(client: Client, usual: float) -> float:
    """Return the seconds after the load until a single query takes at most five times its usual time."""
    started = time.perf_counter()
    while True:
        start = time.perf_counter()
        if await client.search(1, MODEST) == 200 and time.perf_counter() - start <= 5 * usual:
            return time.perf_counter() - started
        await asyncio.sleep(0.02)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def plot(record: Record, deadline: float, path: Path) -> None:
    """Plot responses a second, response times and memory over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (rates, times, memory) = plt.subplots(3, 1, figsize=(9, 8), sharex=True, layout="constrained")
    last = int(max(start for start, _, _ in record.requests)) + 1
    for status in sorted({status for _, status, _ in record.requests}):
        starts = [start for start, each, _ in record.requests if each == status]
        rates.plot(np.histogram(starts, bins=last, range=(0, last))[0], label=str(status))
    rates.set_ylabel("responses/s")
    rates.legend()
    for label, statuses in ("served", {200}), ("rejected", {429, 503}):
        by_second: list[list[float]] = [[] for _ in range(last + 1)]
        for start, status, seconds in record.requests:
            if status in statuses:
                by_second[int(start)].append(seconds)
        for share in (50, 99):
            line = [np.percentile(values, share) if values else np.nan for values in by_second]
            times.plot(line, label=f"{label}, p{share}")
    times.axhline(deadline, color="grey", linestyle=":", label="deadline")
    times.set_ylabel("response time, s")
    times.legend()
    memory.plot(*zip(*((second, size / 1e6) for second, size in record.resident), strict=True))
    memory.set_ylim(bottom=0)
    memory.set_ylabel("resident, MB")
    memory.set_xlabel("seconds of overload")
    figure.savefig(path, dpi=120)


async def measure(port: int, pid: int, rate: float, usual: float, options: argparse.Namespace) -> None:
    """Run the overload and the recovery, and print the figures."""
    client = Client(port)
    await asyncio.gather(*(client.search(number, MODEST) for number in range(32)))  # warm up
    record = await overload(client, options.times * rate, options.seconds, pid)
    recovered = await recovery(client, usual)
    await asyncio.sleep(options.deadline)
    statuses = Counter(status for _, status, _ in record.requests)
    served, rejected = record.seconds(200), record.seconds(429, 503) or [0.0]
    sizes = [size / 1e6 for _, size in record.resident]
    print(f"offered {options.times * rate:.0f}/s for {options.seconds} s; responses by status: {dict(statuses)}")
    for label, seconds in ("served", served), ("rejected", rejected):
        p50, p99 = np.percentile(seconds, (50, 99))
        print(f"{label} {len(seconds) / options.seconds:.0f}/s, p50 {p50:.2f} s, p99 {p99:.2f} s")
    print(
        f"resident, MB: {sizes[len(sizes) // 5]:.0f} after a fifth, {sizes[-1]:.0f} at the end, {max(sizes):.0f} peak"
    )
    print(f"as fast as before {recovered:.2f} s after the end")
    if options.plot:
        plot(record, options.deadline, options.plot)


@contextmanager
def _behind_nginx(port: int) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as folder, compose_proxy(Path(folder), port) as own:
        yield own


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--times", type=float, default=3.0, help="multiple of the capacity")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--deadline", type=float, default=10.0, help="of the service, seconds")
    parser.add_argument("--nginx", action="store_true", help="put nginx (Debian's package) in front of the service")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(machine())
    settings = {"LOOKALIKE_DEADLINE": str(options.deadline), "LOOKALIKE_KEYS": f"read:{GREEDY} read:{MODEST}"}
    proxy = _behind_nginx if options.nginx else nullcontext
    with serving(options.collection, **settings) as (port, _), proxy(port) as own:
        rate, usual = asyncio.run(capacity(Client(own), 10))
    print(f"single: {usual * 1e3:.1f} ms; 32 clients: {rate:.0f} queries/s", flush=True)
    with (
        serving(options.collection, **settings, LOOKALIKE_RATE_LIMIT=f"{rate:.0f}/second") as (port, pid),
        proxy(port) as own,
    ):
        asyncio.run(measure(own, pid, rate, usual, options))


if __name__ == "__main__":
    main()
