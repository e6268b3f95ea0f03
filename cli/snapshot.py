"""`lookalike snapshot` and `lookalike restore`: a backup of a collection, and the way back."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lookalike.messages import number_of

if TYPE_CHECKING:
    from indexing.snapshot import SnapshotSummary

_INTERRUPTED = 130
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")]


def snapshot(
    collection: Annotated[Path, typer.Argument(metavar="COLLECTION", help="Folder of the collection.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New or empty folder for the copy.")],
    link: Annotated[
        bool,
        typer.Option("--link", help="Link the files of the version instead of copying them, where OUT is on one disk."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a collection with its writes to another folder, as of one moment.

    A service and jobs may write to the collection meanwhile. Every file is compared with its checksum. The copy is a
    collection, which `lookalike serve` and `lookalike restore` take. `--link` needs no space and no time, but a damaged
    disk damages both.

    Example:  lookalike snapshot images backups/monday
    """
    from indexing.progress import Progress
    from indexing.snapshot import take_snapshot  # imports Arrow: not for `--help`

    _run(lambda: take_snapshot(collection, out, Progress(unit="MB"), link=link), "copied", as_json)


def restore(
    snapshot: Annotated[Path, typer.Argument(metavar="SNAPSHOT", help="Folder that `lookalike snapshot` wrote.")],
    collection: Annotated[
        Path, typer.Argument(metavar="COLLECTION", help="Folder of the collection; new or empty without --replace.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the collection that is there, and all writes to it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a snapshot the collection of a folder.

    Every file is compared with its checksum before anything is changed, and an interrupted run leaves no half
    collection. A service that writes to the collection must be stopped first.

    Example:  lookalike restore backups/monday images

    Example:  lookalike restore backups/monday images --replace
    """
    from indexing.progress import Progress
    from indexing.snapshot import restore as copy  # imports Arrow: not for `--help`

    _run(lambda: copy(snapshot, collection, Progress(unit="MB"), replace=replace), "restored", as_json)


def _run(copy: Callable[[], SnapshotSummary], done: str, as_json: bool) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a script's background job ignores it
        signal.signal(number, signal.default_int_handler)
    try:
        summary = copy()
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo(json.dumps(asdict(summary)) if as_json else _summary_text(summary, done))


def _summary_text(summary: SnapshotSummary, done: str) -> str:
    pending = f", {number_of(summary.pending, 'item')} with pending writes" if summary.pending else ""
    lines = [
        f"{done} {summary.source} to {summary.target}, version {summary.version}",
        f"  {number_of(summary.files, 'file')}, {summary.bytes / 1e6:,.1f} MB{pending}; {summary.seconds:.1f} s",
    ]
    return "\n".join([*lines, f"next:  lookalike serve {shlex.quote(summary.target)}"])
