"""What `lookalike pull` and `lookalike push` share: the run, and its summary."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from lookalike.messages import number_of

if TYPE_CHECKING:
    from indexing.transfer import TransferSummary

_INTERRUPTED = 130


def run_transfer(copy: Callable[[], TransferSummary], done: str, folder: str | None, as_json: bool) -> None:
    """Run a copy and print its summary.

    Args:
        copy: the copy.
        done: what it did, for the summary.
        folder: of the collection, for the command to continue with; None for none.
        as_json: whether to print the summary as one line of JSON.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a script's background job ignores it
        signal.signal(number, signal.default_int_handler)
    try:
        summary = copy()
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to resume", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo(json.dumps(asdict(summary)) if as_json else _summary_text(summary, done, folder))


def _summary_text(summary: TransferSummary, done: str, folder: str | None) -> str:
    first = f"unchanged: version {summary.version}" if summary.unchanged else f"{done}, version {summary.version}"
    megabytes = summary.bytes / 1e6
    lines = [
        first,
        f"  {number_of(summary.files, 'file')}, {megabytes:,.1f} MB; {summary.copied_files:,} copied "
        f"({summary.copied_bytes / 1e6:,.1f} MB) in {summary.seconds:.1f} s",
    ]
    return "\n".join([*lines, f"next:  lookalike serve {shlex.quote(folder)}"] if folder else lines)
