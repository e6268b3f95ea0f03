"""`lookalike duplicates`: groups of near-identical images in a collection, as text, JSON or an HTML page."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lookalike.errors import SourceError

_MAX_LISTED_GROUPS = 20


def duplicates(
    collection: Annotated[Path, typer.Argument(help="Folder of the collection that `lookalike index` wrote.")],
    threshold: Annotated[
        float, typer.Option(help="Minimum cosine similarity of images that count as near-identical.", min=0.5, max=1.0)
    ] = 0.93,
    page: Annotated[
        Path | None,
        typer.Option(help="HTML file to write, which shows the images of each group side by side.", dir_okay=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all groups as one line of JSON.")] = False,
) -> None:
    """List groups of near-identical images: copies, resized or recompressed versions, shots of a burst.

    It compares the vectors of the collection, and encodes no image. Up to 200,000 images, every pair is compared: a
    minute for 100,000 images on two cores. A larger collection is searched by its index.

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
    started = time.perf_counter()
    with tqdm(total=len(opened), unit=" images", disable=None, leave=False) as bar:
        groups = duplicate_groups(opened.vectors, threshold, store, bar.update)
    seconds = time.perf_counter() - started
    listed = [
        {
            "ids": [str(record["id"]) for record in opened.metadata.records(group.rows)],
            "cosine": round(group.cosine, 6),
        }
        for group in (groups if as_json else groups[:_MAX_LISTED_GROUPS])
    ]
    if page is not None:
        _write(page, duplicates_page(opened, groups, threshold))
    duplicate_count = sum(len(group.rows) - 1 for group in groups)
    facts = {"items": len(opened), "threshold": threshold, "duplicates": duplicate_count, "seconds": round(seconds, 3)}
    if as_json:
        typer.echo(json.dumps({**facts, "groups": listed}))
        return
    typer.echo(_summary(facts, len(groups), listed, page))


def _require_writable(page: Path) -> None:
    """Raise SourceError before minutes of work rather than after them."""
    try:
        page.open("a").close()
    except OSError as error:
        raise _write_error(page, error) from error


def _write(page: Path, html: str) -> None:
    try:
        page.write_text(html, encoding="utf-8")
    except OSError as error:
        raise _write_error(page, error) from error


def _write_error(page: Path, error: OSError) -> SourceError:
    return SourceError(f"{page} can't be written: {error.strerror}")


def _summary(facts: dict[str, Any], count: int, listed: list[dict[str, Any]], page: Path | None) -> str:
    lines = [f"{group['cosine']:.4f}  {'  '.join(group['ids'])}" for group in listed]
    if count > len(listed):
        lines.append(f"... and {count - len(listed):,} more groups; --json lists all")
    lines.append(
        f"{count:,} groups of images with a cosine of at least {facts['threshold']:g}; {facts['duplicates']:,} of "
        f"{facts['items']:,} images are duplicates; {facts['seconds']:.1f} s"
    )
    return "\n".join([*lines, f"page: {page}"] if page else lines)
