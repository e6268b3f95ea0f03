"""`lookalike duplicates`: near-identical images of a collection, as a list, as JSON or as a page."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lookalike.errors import SourceError

_SHOWN = 20


def duplicates(
    collection: Annotated[Path, typer.Argument(help="Folder of the collection, as `lookalike index` made it.")],
    threshold: Annotated[
        float, typer.Option(help="Cosine from which on two images are near-identical.", min=0.5, max=1.0)
    ] = 0.93,
    page: Annotated[
        Path | None, typer.Option(help="Write an HTML page that shows each group side by side.", dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all groups as one line of JSON.")] = False,
) -> None:
    """List groups of near-identical images: copies, other sizes and qualities, shots of a moment apart.

    Nothing is encoded: the collection's own vectors are compared, all with all up to 200,000 images (a minute for
    100,000 on two cores), by the index above.

    Example:  lookalike duplicates images --page duplicates.html
    """
    from tqdm import tqdm

    from cli.duplicates_page import duplicates_page
    from lookalike.collection import open_collection
    from lookalike.duplicates import duplicate_groups
    from lookalike.stores.registry import open_store

    if page is not None:
        _require_writable(page)
    opened = open_collection(collection)
    entry = opened.manifest.store
    store = open_store(entry.kind, opened.folder, opened.vectors, entry.params)
    begun = time.perf_counter()
    with tqdm(total=len(opened), unit=" images", disable=None, leave=False) as bar:
        groups = duplicate_groups(opened.vectors, threshold, store, bar.update)
    seconds = time.perf_counter() - begun
    named = [
        {
            "ids": [str(record["id"]) for record in opened.metadata.records(group.rows)],
            "cosine": round(group.cosine, 6),
        }
        for group in (groups if as_json else groups[:_SHOWN])
    ]
    if page is not None:
        _write(page, duplicates_page(opened, groups, threshold))
    extra = sum(len(group.rows) - 1 for group in groups)
    facts = {"items": len(opened), "threshold": threshold, "duplicates": extra, "seconds": round(seconds, 3)}
    if as_json:
        typer.echo(json.dumps({**facts, "groups": named}))
        return
    typer.echo(_report(facts, len(groups), named, page))


def _require_writable(page: Path) -> None:
    """Before minutes of work, not after."""
    try:
        page.open("a").close()
    except OSError as error:
        raise _unwritable(page, error) from error


def _write(page: Path, html: str) -> None:
    try:
        page.write_text(html, encoding="utf-8")
    except OSError as error:
        raise _unwritable(page, error) from error


def _unwritable(page: Path, error: OSError) -> SourceError:
    return SourceError(f"{page} can't be written: {error.strerror}")


def _report(facts: dict[str, Any], count: int, named: list[dict[str, Any]], page: Path | None) -> str:
    lines = [f"{group['cosine']:.4f}  {'  '.join(group['ids'])}" for group in named]
    if count > len(named):
        lines.append(f"... and {count - len(named):,} groups more; --json lists all")
    lines.append(
        f"{count:,} groups of images with a cosine of {facts['threshold']:g} or more: {facts['duplicates']:,} of "
        f"{facts['items']:,} could go; {facts['seconds']:.1f} s"
    )
    return "\n".join([*lines, f"see {page}"] if page else lines)
