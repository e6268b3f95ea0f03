"""`lookalike search`: one query from the shell, without a server."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lookalike.errors import SourceNotFound
from lookalike.messages import quoted
from lookalike.types import Hit, SearchResult


def search(
    collection: Annotated[Path, typer.Argument(help="Folder of the collection that `lookalike index` wrote.")],
    text: Annotated[str | None, typer.Option(help="Text query.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image file as the query.")] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of results.", min=1)] = 10,
    filter_json: Annotated[
        str | None,
        typer.Option(
            "--filter",
            help="Filter on metadata as JSON; docs/reference/filters.md describes it.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER", help="Search parameter of the collection's index, such as nprobe=64. Repeatable."
        ),
    ] = None,
    fields: Annotated[
        str | None,
        typer.Option(
            help="Metadata columns of the results, separated by commas; empty for none. JSON has all by default."
        ),
    ] = None,
    exact: Annotated[bool, typer.Option(help="Compare with every vector instead of using the index.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one line of JSON: the response of the HTTP API, without thumbnail_url."),
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="Name of the collection's encoder, for weights that have moved.")
    ] = None,
) -> None:
    """Search a collection by text or by image, without a service.

    Pass either `--text` or `--image`.

    Example:  lookalike search images --text "a dog on the beach" --limit 5

    Example:  lookalike search images --image cat.jpg --filter '{"must": [{"field": "width", "range": {"gte": 500}}]}'
    """
    if text is None and image is None:
        raise typer.BadParameter("a query is missing; pass --text '...' or --image FILE")
    if text is not None and image is not None:
        raise typer.BadParameter("--text and --image are two queries; pass one of them")
    data = _read(image) if image is not None else None

    from lookalike.bootstrap import open_searcher  # imports torch and FAISS: not for `--help`
    from lookalike.filters import parse_filter
    from lookalike.row_search import SearchOptions

    options = SearchOptions(
        limit, parse_filter(filter_json) if filter_json else None, _params(param or []), exact, _fields(fields)
    )
    searcher = open_searcher(
        collection, encoder=encoder, store_device="cpu"
    )  # an upload to the GPU takes longer than one query
    started = time.perf_counter()
    result = searcher.search_image(data, options) if data is not None else searcher.search_text(text or "", options)
    total = (time.perf_counter() - started) * 1000.0
    manifest = searcher.collection.manifest
    source = {"collection": manifest.name, "version": manifest.version, "encoder": manifest.encoder.name}
    if result.truncated_tokens:
        note = f"the encoder did not read the last {result.truncated_tokens} tokens of the text: it is too long"
        typer.echo(f"note: {note}", err=True)
    typer.echo(json.dumps(_json(result, total, source)) if as_json else _table(result, total, fields))


def _params(options: list[str]) -> dict[str, int] | None:
    params: dict[str, int] = {}
    for text in options:
        name, _, number = text.partition("=")
        if not number.isdecimal():
            raise typer.BadParameter(f"--param is {quoted(text)}; it must have the form NAME=NUMBER, such as nprobe=64")
        params[name] = int(number)
    return params or None


def _fields(names: str | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return tuple(name.strip() for name in names.split(",")) if names.strip() else ()


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device might never end
            raise SourceNotFound(f"{path} is not an image file")
        return path.read_bytes()
    except OSError as error:
        raise SourceNotFound(f"{path} can't be read: {error.strerror}") from error


def _json(result: SearchResult, total: float, source: dict[str, str]) -> dict[str, Any]:
    from lookalike.stopwatch import STAGES

    results = [{"id": hit.id, "score": round(hit.score, 6), "metadata": dict(hit.metadata)} for hit in result.hits]
    took = {stage: round(result.took_ms.get(stage, 0.0), 3) for stage in STAGES}
    took_ms = {**took, "total": round(total, 3)}
    return {"results": results, "truncated_tokens": result.truncated_tokens, "took_ms": took_ms, **source}


def _table(result: SearchResult, total: float, fields: str | None) -> str:
    width = max((len(hit.id) for hit in result.hits), default=0)
    columns = shutil.get_terminal_size((120, 24)).columns
    lines = [
        f"{rank:>3}  {hit.score:7.4f}  {hit.id:<{width}}  {_values(hit, fields)}".rstrip()[:columns]
        for rank, hit in enumerate(result.hits, 1)
    ]
    return "\n".join([*lines, f"{len(lines)} items in {total:.1f} ms"])


def _values(hit: Hit, fields: str | None) -> str:
    """Return the values of the chosen columns, or the caption."""
    values = [hit.metadata.get("caption", "")] if fields is None else hit.metadata.values()
    return "  ".join(map(_one_line, values))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
