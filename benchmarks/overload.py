"""`python -m benchmarks.overload COLLECTION`: three times the load that can be served, for five minutes.

The service runs as a process of its own, with its default bounds. First 32 clients in turn find out what it can serve;
then queries are sent at `--times` that rate, each at its moment whether or not others have been answered (an open
loop: no client is so kind as to wait). One in ten is an image. Two callers share the load, and the greedy one, who
sends two thirds of it, may ask at the rate that can be served: 429 beyond it. Asked for: nothing but 200, 429 and 503;
p99 of what is served under the deadline; memory flat; and after the load ends, an answer as fast as before within two
seconds. The load's process shares the cores with the service, which makes the service's part harder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.encoders import machine
from benchmarks.service import photograph
from benchmarks.serving import serving

_CONNECTIONS = 8000  # more than the service lets wait: where all were taken, the load would wait for the service
_PICTURES = 10  # every tenth query is one
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
class Seen:
    """What the load saw: of each request its start, status (0: none) and seconds; and resident bytes over time."""

    requests: list[tuple[float, int, float]] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)

    def seconds(self, *statuses: int) -> list[float]:
        """Seconds of the requests that had one of these."""
        return [seconds for _, status, seconds in self.requests if status in statuses]


class Client:
    """HTTP/1.1 over kept connections, with as little of its own as can be."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._image = photograph()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._free = asyncio.Semaphore(_CONNECTIONS)

    async def search(self, number: int, key: str) -> int:
        """A query's status; 0 where the connection broke."""
        kind, media_type, body = "text", "application/json", json.dumps({"text": _text(number), "limit": 10}).encode()
        if number % _PICTURES == 0:
            kind, media_type, body = "image", "image/jpeg", self._image
        head = (
            f"POST /v1/search/{kind} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\n"
            f"X-API-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with self._free:
            status = 0
            while not status and self._idle:  # the service may have closed what was idle: then the next, as clients do
                status = await self._ask(*self._idle.pop(), head.encode() + body)
            try:
                return status or await self._ask(
                    *await asyncio.open_connection("127.0.0.1", self._port), head.encode() + body
                )
            except OSError:
                return 0

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
        try:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return 0
        self._idle.append((reader, writer))
        return int(answer[9:12])


def _text(number: int) -> str:
    return " ".join(_WORDS[number // 7**place % len(_WORDS)] for place in range(4)) + f" {number}"


async def capacity(client: Client, seconds: float) -> tuple[float, float]:
    """Queries/s of 32 clients in turn, and the median of a lone one before, seconds."""
    alone = []
    for number in range(100):
        started = time.perf_counter()
        await client.search(number, MODEST)
        alone.append(time.perf_counter() - started)
    end, done = time.perf_counter() + seconds, 0

    async def one(first: int) -> None:
        nonlocal done
        number = first
        while time.perf_counter() < end:
            status = await client.search(number, MODEST)
            done += status == 200
            number += 32

    await asyncio.gather(*(one(1000 + start) for start in range(32)))
    return done / seconds, float(np.median(alone))


async def overload(client: Client, rate: float, seconds: float, pid: int) -> Seen:
    """Send `rate` queries a second and notes what comes of each."""
    seen, started = Seen(), time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        start = time.perf_counter()
        status = await client.search(number, MODEST if number % 3 == 0 else GREEDY)
        seen.requests.append((start - started, status, time.perf_counter() - start))

    sent = 0
    while (now := time.perf_counter() - started) < seconds:
        while sent < now * rate:
            task = asyncio.create_task(one(sent))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        if not seen.resident or now - seen.resident[-1][0] > 1:
            seen.resident.append((now, _resident(pid)))
        await asyncio.sleep(0.01)
    return seen


async def recovery(client: Client, usual: float) -> float:
    """Seconds after the end of the load until a lone query is answered in at most five times what it usually takes."""
    started = time.perf_counter()
    while True:
        start = time.perf_counter()
        if await client.search(1, MODEST) == 200 and time.perf_counter() - start <= 5 * usual:
            return time.perf_counter() - started
        await asyncio.sleep(0.02)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def plot(seen: Seen, deadline: float, path: Path) -> None:
    """Answers a second, times of the served, and memory, over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (rates, times, memory) = plt.subplots(3, 1, figsize=(9, 8), sharex=True, layout="constrained")
    last = int(max(start for start, _, _ in seen.requests)) + 1
    for status in sorted({status for _, status, _ in seen.requests}):
        starts = [start for start, found, _ in seen.requests if found == status]
        rates.plot(np.histogram(starts, bins=last, range=(0, last))[0], label=str(status))
    rates.set_ylabel("answers/s")
    rates.legend()
    for what, statuses in ("served", {200}), ("refused", {429, 503}):
        by_second: list[list[float]] = [[] for _ in range(last + 1)]
        for start, status, seconds in seen.requests:
            if status in statuses:
                by_second[int(start)].append(seconds)
        for share in (50, 99):
            line = [np.percentile(taken, share) if taken else np.nan for taken in by_second]
            times.plot(line, label=f"{what}, p{share}")
    times.axhline(deadline, color="grey", linestyle=":", label="deadline")
    times.set_ylabel("answered after, s")
    times.legend()
    memory.plot(*zip(*((second, size / 1e6) for second, size in seen.resident), strict=True))
    memory.set_ylim(bottom=0)
    memory.set_ylabel("resident, MB")
    memory.set_xlabel("seconds of overload")
    figure.savefig(path, dpi=120)


async def measure(port: int, pid: int, can: float, usual: float, options: argparse.Namespace) -> None:
    """The storm and what comes after it; prints as it goes."""
    client = Client(port)
    await asyncio.gather(*(client.search(number, MODEST) for number in range(32)))  # nothing is cold
    seen = await overload(client, options.times * can, options.seconds, pid)
    back = await recovery(client, usual)
    await asyncio.sleep(options.deadline)
    statuses = Counter(status for _, status, _ in seen.requests)
    served, refused = seen.seconds(200), seen.seconds(429, 503) or [0.0]
    sizes = [size / 1e6 for _, size in seen.resident]
    print(f"offered {options.times * can:.0f}/s for {options.seconds} s; answers by status: {dict(statuses)}")
    for what, seconds in ("served", served), ("refused", refused):
        p50, p99 = np.percentile(seconds, (50, 99))
        print(f"{what} {len(seconds) / options.seconds:.0f}/s, p50 {p50:.2f} s, p99 {p99:.2f} s")
    print(
        f"resident, MB: {sizes[len(sizes) // 5]:.0f} after a fifth, {sizes[-1]:.0f} at the end, {max(sizes):.0f} most"
    )
    print(f"as fast as before {back:.2f} s after the end")
    if options.plot:
        plot(seen, options.deadline, options.plot)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--times", type=float, default=3.0, help="times what can be served")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--deadline", type=float, default=10.0, help="of the service, seconds")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(machine())
    settings = {"LOOKALIKE_DEADLINE": str(options.deadline), "LOOKALIKE_KEYS": f"read:{GREEDY} read:{MODEST}"}
    with serving(options.collection, **settings) as (port, pid):
        can, usual = asyncio.run(capacity(Client(port), 10))
    print(f"alone: {usual * 1e3:.1f} ms; 32 clients: {can:.0f} queries/s", flush=True)
    with serving(options.collection, **settings, LOOKALIKE_RATE_LIMIT=f"{can:.0f}/second") as (port, pid):
        asyncio.run(measure(port, pid, can, usual, options))


if __name__ == "__main__":
    main()
