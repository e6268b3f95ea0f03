"""`lookalike compact`: builds the next version of a collection from its pending writes."""

from __future__ import annotations

import json
import os
import shlex
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.store_options import store_report
from lookalike.messages import number_of

if TYPE_CHECKING:
    from indexing.compaction import CompactSummary

_INTERRUPTED = 130
_NICENESS = 10
"""A service beside it comes first. Alone on a machine, it is as fast as without."""


def compact(
    collection: Annotated[Path, typer.Argument(metavar="COLLECTION", help="Folder of the collection.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Build a version of a collection that holds the writes which are pending.

    A service may serve the collection and write to it meanwhile: it swaps to the new version, and what was written
    since stays pending. No image is encoded. An interrupted run leaves the collection as it was. The command runs with
    a low CPU priority.
    docs/guides/update-a-collection.md is the guide.

    Example:  lookalike compact images
    """
    os.nice(_NICENESS)  # before threads are started, which inherit it

    from indexing.compaction import run_compact  # imports FAISS, Arrow: not for `--help`
    from indexing.progress import Progress

    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a script's background job ignores it
        signal.signal(number, signal.default_int_handler)
    try:
        summary = run_compact(collection, Progress(unit="items"))
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was changed", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo(json.dumps(asdict(summary)) if as_json else summary_text(summary))


def summary_text(summary: CompactSummary) -> str:
    """Return the summary in words, with the next command."""
    items = number_of(summary.items, "item")
    if summary.unchanged:
        return f"nothing pending: {items} in {summary.collection}, version {summary.version}"
    lines = [
        f"compacted {summary.collection}: {items}, version {summary.version}",
        f"  {summary.added:,} added, {summary.replaced:,} replaced, {summary.changed:,} changed, "
        f"{summary.deleted:,} deleted; {summary.seconds:.1f} s",
        *store_report(summary.store, summary.recall),
    ]
    return "\n".join([*lines, f"next:  lookalike serve {shlex.quote(summary.collection)}"])
