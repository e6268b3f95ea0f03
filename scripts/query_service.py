"""Send a text, an image and a pair query to a running service and check the responses; needs no packages."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen


def wait(address: str, seconds: float = 180.0) -> None:
    """Return when /readyz answers 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urlopen(f"{address}/readyz", timeout=5):
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)  # not listening yet, or 503: still warming up
    sys.exit(f"{address} was not ready after {seconds:.0f} seconds")


def post(url: str, body: bytes, content_type: str) -> dict[str, Any]:
    """Return the JSON response to a body."""
    with urlopen(Request(url, body, {"Content-Type": content_type}), timeout=60) as response:
        content: dict[str, Any] = json.load(response)
    return content


def query(address: str, text: str, image: Path, expected: str) -> None:
    """Send the three queries; exit with a message at the first wrong response."""
    found = post(f"{address}/v1/search/text", json.dumps({"text": text, "limit": 3}).encode(), "application/json")
    by_text = found["results"][0]
    print(f"text  {text!r}: {by_text['id']} {by_text['score']:.4f}, {found['took_ms']['total']:.1f} ms")
    check(expected in by_text["id"], f"expected {expected} first")

    found = post(f"{address}/v1/search/image?limit=3", image.read_bytes(), "image/png")
    by_image = found["results"][0]
    print(f"image {image.name}: {by_image['id']} {by_image['score']:.4f}, {found['took_ms']['total']:.1f} ms")
    check(by_image["id"] == by_text["id"] and by_image["score"] > 0.999, "expected the same image with score 1")

    sides = {"a": {"id": by_image["id"]}, "b": {"id": found["results"][1]["id"]}}
    pair = post(f"{address}/v1/similarity", json.dumps(sides).encode(), "application/json")
    print(f"pair  {sides['a']['id']}, {sides['b']['id']}: cosine {pair['cosine']:.4f}, similar: {pair['similar']}")
    check(abs(pair["cosine"] - found["results"][1]["score"]) < 1e-3, "expected the score of the image query")


def query_until_stopped(address: str, text: str) -> None:
    """Send one text query after another until SIGTERM; exit with status 1 if any failed."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    body, failures, slowest, sent = json.dumps({"text": text, "limit": 1}).encode(), [], 0.0, 0
    while not stopped:
        begun, sent = time.monotonic(), sent + 1
        try:
            post(f"{address}/v1/search/text", body, "application/json")
        except (OSError, HTTPException) as error:
            failures.append(repr(error))
        slowest = max(slowest, time.monotonic() - begun)
    print(f"queries: {sent}, {len(failures)} failed, the slowest took {slowest:.2f} s")
    check(not failures, f"failures: {sorted(set(failures))}")


def check(condition: bool, message: str) -> None:
    """Exit with status 1 unless the condition holds."""
    if not condition:
        sys.exit(f"wrong response: {message}")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="http://HOST:PORT")
    parser.add_argument("--wait", action="store_true", help="only wait until the service is ready")
    parser.add_argument("--text")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--expect", help="part of the id that text and image must find first")
    parser.add_argument("--until-stopped", action="store_true", help="send the text again and again, until SIGTERM")
    arguments = parser.parse_args()
    wait(arguments.address)
    if arguments.until_stopped:
        query_until_stopped(arguments.address, arguments.text)
    elif not arguments.wait:
        query(arguments.address, arguments.text, arguments.image, arguments.expect)


if __name__ == "__main__":
    main()
