"""`lookalike search`: one query or many from the shell, without a server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.search_output import NO_MATCH, response, table
from cli.tables import column_names
from lookalike.errors import QueryError
from lookalike.messages import quoted
from lookalike.types import SearchResult

if TYPE_CHECKING:
    from lookalike.local_search import LocalSearcher
    from lookalike.query_parts import WeightedInput
    from lookalike.row_search import SearchOptions

_QUERIES_PER_BATCH = 256


def search(
    collection: Annotated[Path, typer.Argument(help="Folder of the collection that `lookalike index` wrote.")],
    text: Annotated[
        list[str] | None, typer.Option("--text", "--and-text", metavar="TEXT", help="Text query, or a part of it.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", "--and-image", metavar="FILE", help="Image file as the query, or as a part of it."),
    ] = None,
    id: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="Item of the collection as the query, or a part.")
    ] = None,
    not_text: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="Text to move away from: a part of weight -1.")
    ] = None,
    not_image: Annotated[
        list[Path] | None,
        typer.Option("--not-image", metavar="FILE", help="Image to move away from: a part of weight -1."),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="The query as JSON, as the HTTP API takes it, for weights and embeddings; `image` is a file's path.",
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of text queries, one a line; - for stdin. Prints one line of JSON for each.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of results.", min=1)] = 10,
    offset: Annotated[int, typer.Option(help="Number of results to skip.", min=0)] = 0,
    min_score: Annotated[
        float | None, typer.Option(help="Lowest score of a result, a cosine between -1 and 1.")
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(help="Lowest probability of a result, between 0 and 1; for a single text, image or item."),
    ] = None,
    filter_json: Annotated[
        str | None,
        typer.Option(
            "--filter",
            help="Filter on metadata as JSON; docs/reference/filters.md describes it.",
        ),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Metadata column of which each value has few results.")
    ] = None,
    group_size: Annotated[int, typer.Option(help="Maximum number of results for each value of --group-by.", min=1)] = 1,
    deduplicate: Annotated[
        float | None,
        typer.Option(
            metavar="COSINE",
            help="Leave out items that are near-identical to a better result: from this cosine on, such as 0.93.",
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
    embeddings: Annotated[bool, typer.Option(help="Whether JSON results have their embedding.")] = False,
    exact: Annotated[bool, typer.Option(help="Compare with every vector instead of using the index.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one line of JSON: the response of the HTTP API, without thumbnail_url."),
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="Name of the collection's encoder, for weights that have moved.")
    ] = None,
) -> None:
    """Search a collection by texts, images and items, without a service.

    Several of `--text`, `--image`, `--id`, `--not` and `--not-image` make one combined query. Each may be repeated;
    `--and-text` and `--and-image` are other names of `--text` and `--image`. `--query` has weights.

    The probability beside a score says how likely the result truly matches. A combined query has none.

    Example:  lookalike search images --text "a dog on the beach" --limit 5

    Example:  lookalike search images --image cat.jpg --filter '{"must": [{"field": "width", "range": {"gte": 500}}]}'

    Example:  lookalike search images --image shirt.jpg --and-text "with long sleeves" --not "striped"

    Example:  lookalike search images --query '[{"image": "cat.jpg"}, {"text": "on grass", "weight": 1.5}]'

    Example:  lookalike search images --queries queries.txt --min-score 0.2
    """
    given = [text, image, id, not_text, not_image]
    if query is None and queries is None and not any(given):
        raise typer.BadParameter("a query is missing; pass --text '...' or --image FILE")
    if (query is not None) + (queries is not None) + any(given) > 1:
        raise typer.BadParameter("--query and --queries stand alone; leave out --text, --image, --id and --not")

    from lookalike.bootstrap import open_searcher  # imports torch and FAISS: not for `--help`
    from lookalike.filters import parse_filter
    from lookalike.local_search import LocalSearcher
    from lookalike.row_search import SearchOptions

    options = SearchOptions(
        limit=limit,
        filter=parse_filter(filter_json) if filter_json else None,
        params=_params(param or []),
        exact=exact,
        fields=column_names(fields),
        offset=offset,
        min_score=min_score,
        min_probability=min_probability,
        group_by=group_by,
        group_size=group_size,
        deduplicate=deduplicate,
        embeddings=embeddings and (as_json or queries is not None),
    )
    lines = None if queries is None else text_lines(queries)
    parts = _parts(text, image, id, not_text, not_image) if query is None else _query(query)
    searcher = open_searcher(
        collection, encoder=encoder, store_device="cpu"
    )  # an upload to the GPU takes longer than one query
    manifest = searcher.collection.manifest
    source = {"collection": manifest.name, "version": manifest.version, "encoder": manifest.encoder.name}
    local = LocalSearcher(searcher, lambda: searcher)
    if lines is not None:
        _search_lines(local, lines, options, source)
        return
    started = time.perf_counter()
    result = local.search(parts, options)
    total = (time.perf_counter() - started) * 1000.0
    _print_notes(result)
    if as_json:
        typer.echo(json.dumps(response(result, total, source, _optional(options))))
    else:
        typer.echo(table(result, total, offset, fields))


def _search_lines(local: LocalSearcher, lines: Iterator[str], options: SearchOptions, source: dict[str, str]) -> None:
    """Print a line of JSON for each text; raise typer.Exit with status 1 at the end if one failed."""
    from lookalike.query_parts import read_query

    failed = False
    while texts := list(islice(lines, _QUERIES_PER_BATCH)):
        started = time.perf_counter()
        outcomes = local.search_batch([read_query(text) for text in texts], options)
        total = (time.perf_counter() - started) * 1000.0
        for text, outcome in zip(texts, outcomes, strict=True):
            if isinstance(outcome, SearchResult):
                body = response(outcome, total, source, _optional(options))
            else:
                failed = True
                body = {"code": getattr(outcome, "code", QueryError.code), "detail": str(outcome)}
            typer.echo(json.dumps({"query": text, **body}))
    if failed:
        raise typer.Exit(1)


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, or of stdin; raises OSError."""
    with nullcontext(sys.stdin) if str(path) == "-" else path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            yield line.rstrip("\r\n")


def _parts(
    texts: list[str] | None,
    images: list[Path] | None,
    ids: list[str] | None,
    not_texts: list[str] | None,
    not_images: list[Path] | None,
) -> list[WeightedInput]:
    from lookalike.query_parts import WeightedInput

    return [
        *(WeightedInput("image", image) for image in images or ()),
        *(WeightedInput("id", id) for id in ids or ()),
        *(WeightedInput("text", text) for text in texts or ()),
        *(WeightedInput("image", image, -1.0) for image in not_images or ()),
        *(WeightedInput("text", text, -1.0) for text in not_texts or ()),
    ]


def _query(text: str) -> list[WeightedInput]:
    from lookalike.query_parts import read_query

    try:
        parts = read_query(json.loads(text))
    except ValueError as error:
        raise typer.BadParameter(f"--query is not JSON: {error}; it is {quoted(text)}") from error
    except TypeError as error:
        raise QueryError(f"--query: {error}") from error
    for part in parts:
        if part.kind != "embedding" and not isinstance(part.value, str):
            raise QueryError(f"--query: {part.kind} is {quoted(part.value)}; it must be a text")
    return parts


def _print_notes(result: SearchResult) -> None:
    """Print on stderr what the user should know about the results."""
    notes = list(result.warnings)
    if result.truncated_tokens:
        notes.append(f"the encoder did not read the last {result.truncated_tokens} tokens of the text: it is too long")
    if result.no_match:
        notes.append(f"{NO_MATCH}; the results are the best guesses" if result.hits else NO_MATCH)
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _optional(options: SearchOptions) -> set[str]:
    """Return which of the optional members of a result the options ask for."""
    wanted = {"group": options.group_by, "duplicates": options.deduplicate}
    return {name for name, option in wanted.items() if option is not None}


def _params(options: list[str]) -> dict[str, int] | None:
    params: dict[str, int] = {}
    for text in options:
        name, _, number = text.partition("=")
        if not number.isdecimal():
            raise typer.BadParameter(f"--param is {quoted(text)}; it must have the form NAME=NUMBER, such as nprobe=64")
        params[name] = int(number)
    return params or None
