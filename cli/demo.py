"""`lookalike demo`: index a folder, serve the collection and send it queries.

It uses only the other commands, as subprocesses, and the public HTTP API.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from cli.gallery import write_gallery
from lookalike.errors import SourceNotFound

_MAX_START_SECONDS = 180.0
_SAMPLE_TEXTS = ("a cat", "eine Tasse Kaffee")


def demo(
    images: Annotated[Path | None, typer.Option(help="Folder of images.", show_default="the sample gallery")] = None,
    port: Annotated[int, typer.Option(help="Port of the service on 127.0.0.1.", min=1, max=65535)] = 8000,
    once: Annotated[bool, typer.Option("--once", help="Stop after the queries.")] = False,
    home: Annotated[Path, typer.Option(help="Folder for the sample gallery and the collections.")] = Path(".lookalike"),
) -> None:
    """Index a folder, start the service, and send it texts, an image and a pair.

    The service then runs until Ctrl-C. A second run reuses the collection.

    Example:  lookalike demo --images ~/Pictures --port 8001
    """
    folder = images.expanduser() if images else home / "gallery"
    if images is None:
        write_gallery(folder)
    elif not folder.is_dir():
        raise SourceNotFound(f"{folder} is not a folder; pass a folder of images")
    collection = home / "collections" / _collection_name(folder, images is None)
    _run("index", str(folder), "--out", str(collection))
    service = _start("serve", str(collection), "--port", str(port))
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_ready(service, address)
        _show_queries(address, folder, _SAMPLE_TEXTS if images is None else ("people outdoors",))
        if not once:
            typer.echo(f"\nOpen {address}/ for the search page, {address}/docs for the API.  Ctrl-C stops.")
            if service.wait():
                raise typer.Exit(service.returncode)
    except KeyboardInterrupt:
        typer.echo("\nstopping")
    finally:
        _stop(service)


def _collection_name(folder: Path, sample: bool) -> str:
    if sample:
        return "sample"
    resolved = folder.resolve()
    return f"{resolved.name}-{hashlib.sha256(str(resolved).encode()).hexdigest()[:8]}"


def _lookalike(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", *arguments]


def _run(*arguments: str) -> None:
    process = subprocess.run(_lookalike(*arguments), check=False)
    if process.returncode:
        raise typer.Exit(process.returncode)


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(_lookalike(*arguments))


def _wait_until_ready(service: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _MAX_START_SECONDS
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise typer.Exit(service.returncode or 1)
        try:
            if httpx.get(f"{address}/readyz", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    typer.echo(f"error: the service was not ready after {_MAX_START_SECONDS:.0f} seconds", err=True)
    raise typer.Exit(1)


def _show_queries(address: str, folder: Path, texts: tuple[str, ...]) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        for text in texts:
            body = _show(f"text    {text!r}", client.post("/v1/search/text", json={"text": text, "limit": 3}))
        first, second = _pair([folder / result["id"] for result in body["results"]], folder)
        image = {"file": first.read_bytes()}
        _show(f"image   {first.name}", client.post("/v1/search/image", files=image, data={"limit": "3"}))
        pair = {"a": first.read_bytes(), "b": second.read_bytes()}
        _show(f"pair    {first.name} and {second.name}", client.post("/v1/similarity", files=pair))


def _pair(results: list[Path], folder: Path) -> tuple[Path, Path]:
    """Return two views of the same object in the sample gallery, or the first two results in another folder."""
    views = sorted(folder.glob("motorcycle_*.png"))
    if len(views) == 2:
        return views[0], views[1]
    return results[0], results[min(1, len(results) - 1)]


def _show(title: str, response: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    typer.echo(f"\n{title}")
    if response.is_error:
        typer.echo(f"  {response.status_code}: {json.dumps(body)}", err=True)
        raise typer.Exit(1)
    for result in body.get("results", []):
        typer.echo(f"  {result['score']:.4f}  {result['id']}")
    if "cosine" in body:
        typer.echo(f"  cosine {body['cosine']:.4f}, distance {body['distance']:.4f}, similar: {body['similar']}")
    if "took_ms" in body:
        typer.echo(f"  in {body['took_ms']['total']:.1f} ms")
    return body


def _stop(service: subprocess.Popen[bytes]) -> None:
    if service.poll() is None:
        service.terminate()
    try:
        service.wait(timeout=30)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()
