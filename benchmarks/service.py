"""`python -m benchmarks.service COLLECTION`: throughput and response times with one and many clients.

`lookalike serve` runs as a separate process, and wrk (Debian's package) sends the load from another, on the same cores:
texts that all differ, and one photograph of 224 pixels. Cases are measured in turn, in several rounds; medians are
reported, and the best rate and p50 of a round. The same rounds measure the encoder alone, since shared machines run at
half their speed for minutes. `--peer URL` measures clip-retrieval's back end by its own requests
(`clip-retrieval back`, `/knn-service`). The overhead of HTTP, batching and JSON is the time of a single request, over a
plain socket, less the times of the stages that its response states.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import skimage
from PIL import Image

from app.execution.workers import MAX_TEXT_BATCH_SIZE
from benchmarks.encoders import machine
from benchmarks.serving import serving
from lookalike.bootstrap import open_searcher
from lookalike.collection import open_collection
from lookalike.search import Searcher
from lookalike.stopwatch import Stopwatch

CASES = (("text", 1), ("text", 32), ("image", 1), ("image", 16))
_STAGES = ("decode", "preprocess", "encode", "filter", "search", "rerank", "metadata")

_LUA = """
local number = 0
local words = {"red", "blue", "dog", "cat", "car", "street", "beach", "snow", "child", "woman", "man", "two", "three"}
request = function()
  number = number + 1
  local text = "a " .. words[number % 13 + 1] .. " and a " .. words[math.floor(number / 13) % 13 + 1] .. " " .. number
  return wrk.format("POST", nil, nil, string.format(TEMPLATE, text))
end
"""


@dataclass(frozen=True)
class Target:
    """A service to measure.

    Attributes:
        name: in the table.
        text: URL and JSON body, with `%s` for the text.
        image: URL, media type and body.
    """

    name: str
    text: tuple[str, str]
    image: tuple[str, str, bytes]


def photograph() -> bytes:
    """Return a JPEG of 224 x 224 pixels."""
    with Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png") as image:
        out = io.BytesIO()
        image.convert("RGB").resize((224, 224)).save(out, "JPEG", quality=90)
    return out.getvalue()


def lookalike_target(base: str) -> Target:
    """Return Lookalike's service."""
    return Target(
        "lookalike",
        (f"{base}/v1/search/text", '{"text": "%s", "limit": 10}'),
        (f"{base}/v1/search/image?limit=10", "image/jpeg", photograph()),
    )


def clip_retrieval_target(base: str, indice: str) -> Target:
    """Return clip-retrieval's back end; it takes images as base64 in JSON."""
    options = {"num_images": 10, "num_result_ids": 10, "modality": "image", "indice_name": indice, "deduplicate": False,
             "use_safety_model": False, "use_violence_detector": False}  # fmt: skip
    image = json.dumps({**options, "image": base64.b64encode(photograph()).decode()}).encode()
    text = json.dumps({**options, "text": "%s"})
    return Target("clip-retrieval", (f"{base}/knn-service", text), (f"{base}/knn-service", "application/json", image))


def load(target: Target, kind: str, clients: int, seconds: int, folder: Path) -> tuple[float, float, float, int]:
    """Return requests/s, p50 and p99 in ms, and the number of responses that were not 2xx or 3xx, by wrk."""
    script, body = folder / "load.lua", folder / "body"
    if kind == "text":
        url, form = target.text
        header = '\nwrk.headers["Content-Type"] = "application/json"\n'
        script.write_text(_LUA.replace("TEMPLATE", json.dumps(form)) + header)
    else:
        url, media_type, data = target.image
        body.write_bytes(data)
        script.write_text(
            f'wrk.method = "POST"\nlocal f = io.open("{body}", "rb")\nwrk.body = f:read("*a")\nf:close()\n'
            f'wrk.headers["Content-Type"] = "{media_type}"\n'
        )
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "--timeout", "30s", "-s", str(script), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert rate is not None, out
    return float(rate[1]), _milliseconds(out, "50"), _milliseconds(out, "99"), int(failed[1]) if failed else 0


def _milliseconds(out: str, share: str) -> float:
    found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)\s*$", out, re.MULTILINE)
    assert found is not None, out
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
    milliseconds: float = float(found[1]) * scale[found[2]]
    return milliseconds


def encoder_alone(searcher: Searcher, kind: str, clients: int, seconds: int) -> tuple[float, float, float, int]:
    """Return the figures of `load` for the encoder alone: single queries, or its preferred batches and concurrency."""
    concurrent = searcher.encoder.max_concurrent_batches if clients > 1 else 1
    size = 1 if clients == 1 else MAX_TEXT_BATCH_SIZE if kind == "text" else searcher.encoder.image_batch_size
    pixels = np.zeros((size, 3, *[searcher.encoder.spec.image_size] * 2), np.uint8)
    end, times = time.perf_counter() + seconds, []

    def work(number: int) -> None:
        while (started := time.perf_counter()) < end:
            if kind == "text":
                searcher.encode_texts([f"a red and a blue {number * i}" for i in range(size)], Stopwatch())
            else:
                searcher.encode_images(pixels, Stopwatch())
            times.append((time.perf_counter() - started) * 1e3)

    with ThreadPoolExecutor(concurrent) as pool:
        list(pool.map(work, range(concurrent)))
    return len(times) * size / seconds, statistics.median(times), float(np.percentile(times, 99)), 0


def overhead(base: str, kind: str, rounds: int = 200) -> float:
    """Return the median ms of a single request less the times of the stages that its response states.

    A plain socket is used: parsing the response's headers takes `http.client` tenths of a millisecond, and httpx one.
    """
    target = lookalike_target(base)
    differences: list[float] = []
    server = urlsplit(base).netloc
    url, media_type, data = target.image if kind == "image" else (target.text[0], "application/json", b"")
    with socket.create_connection((server.split(":")[0], int(server.split(":")[1]))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(rounds):
            body = data or b'{"text": "a dog in the snow %d"}' % number
            head = f"POST {url.removeprefix(base)} HTTP/1.1\r\nHost: {server}\r\nContent-Type: {media_type}\r\n"
            started = time.perf_counter()
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            content = _read_body(connection)
            elapsed = (time.perf_counter() - started) * 1e3
            stages = json.loads(content)["took_ms"]
            differences.append(elapsed - sum(stages[stage] for stage in _STAGES))
    return statistics.median(differences)


def _read_body(connection: socket.socket) -> bytes:
    """Read the body of the next response."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += connection.recv(65_536)
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", data[:end])
    assert length is not None, data[:end]
    while len(data) < end + 4 + int(length[1]):
        data += connection.recv(65_536)
    return data[end + 4 :]


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--seconds", type=int, default=8, help="of each case")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="address of a running clip-retrieval back end, http://127.0.0.1:1234")
    parser.add_argument("--peer-indice", default="gallery", help="name of its index")
    options = parser.parse_args(arguments)
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: apt install wrk")
    with serving(options.collection) as (port, _), _scratch() as folder:
        base = f"http://127.0.0.1:{port}"
        targets = [
            lookalike_target(base),
            *([clip_retrieval_target(options.peer, options.peer_indice)] if options.peer else []),
        ]
        print(machine())
        searcher = open_searcher(open_collection(options.collection, verify=False))
        searcher.warm_up(MAX_TEXT_BATCH_SIZE)
        for kind in ("text", "image"):
            print(f"{kind}: HTTP, batching and JSON beyond the stages: {overhead(base, kind):.2f} ms", flush=True)
        results: dict[tuple[str, str, int], list[tuple[float, float, float, int]]] = {}
        for _ in range(options.rounds):
            for kind, clients in CASES:
                figures = encoder_alone(searcher, kind, clients, options.seconds)
                results.setdefault(("the encoder alone", kind, clients), []).append(figures)
                for target in targets:
                    figures = load(target, kind, clients, options.seconds, folder)
                    results.setdefault((target.name, kind, clients), []).append(figures)
        print(
            "| system | query | clients | requests/s | p50, ms | p99, ms | best round | failed |\n" + "| --- " * 8 + "|"
        )
        for (name, kind, clients), runs in results.items():
            rate, p50, p99 = (statistics.median(run[i] for run in runs) for i in range(3))
            best = f"{max(run[0] for run in runs):.0f}/s, {min(run[1] for run in runs):.1f}"
            failed = sum(run[3] for run in runs)
            print(f"| {name} | {kind} | {clients} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {best} | {failed} |")
        print(httpx.get(f"{base}/v1/stats", headers={"Accept": "text/plain"}).text)


if __name__ == "__main__":
    main()
