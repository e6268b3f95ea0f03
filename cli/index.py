"""`lookalike index`: arguments -> the indexing job -> a summary for people, or one line of JSON."""

from __future__ import annotations

import json
import shlex
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.store_options import Explain, Latency, Memory, Recall, Store, index_budget, quality

if TYPE_CHECKING:
    from indexing.job import IndexSummary

_INTERRUPTED = 130


def index(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders of images, webdataset .tar files, Parquet files, or patterns of them; "
            "NAME=PATH puts NAME/ before the ids.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the collection; made if need be.", show_default=False)],
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder's name, see `lookalike encoders`.", show_default="the collection's, or lite"),
    ] = None,
    store: Store = "auto",
    memory: Memory = None,
    recall: Recall = 0.95,
    latency: Latency = None,
    explain: Explain = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per call of the encoder.", min=1, show_default="32, on a GPU 256")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Decode threads.", min=1, show_default="one a core")] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Parquet: column of unique ids.", show_default="id, key, path, url, else a hash")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Parquet: column of image bytes or paths.", show_default="found by type")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="Parquet and JSON: column of captions.", show_default="caption or text")
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(help="Width x height above which an image is rejected unread.", min=1)
    ] = 64_000_000,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, torch or openvino.")] = "auto",
    replace: Annotated[
        bool, typer.Option("--replace", help="Let images of other sources take the place of all the collection has.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Encode images into a collection that can be searched; run it again to bring the collection up to date.

    Unchanged images are never encoded twice, and a job that was stopped goes on where it stood. Images that can't
    be read don't stop it: they are listed in rejected.parquet.

    Example:  lookalike index ~/Pictures --out images

    Example:  lookalike index 'part-*.tar' more=extra.tar --out gallery --encoder open_clip:ViT-B-32/laion2b_s34b_b79k

    Example:  lookalike index ~/Pictures --out images --memory 300MB --recall 0.97 --latency 5ms --explain

    Example:  lookalike index products.parquet --id-column sku --caption-column title --out products
    """
    from indexing.job import IndexSettings, run_index  # torch, OpenVINO, Arrow: only when there is something to index
    from indexing.progress import Progress
    from lookalike.bootstrap import EngineOptions
    from lookalike.sources.item import ColumnNames

    settings = IndexSettings(
        sources=tuple(sources),
        out=out,
        encoder=encoder,
        store=store,
        batch_size=batch_size,
        workers=workers,
        columns=ColumnNames(id_column, image_column, caption_column),
        max_pixels=max_pixels,
        engine_options=EngineOptions(device, engine),
        budget=index_budget(recall, memory, latency, explain),
        replace=replace,
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # `docker stop` and Ctrl-C alike, in a script's background, too
        signal.signal(number, signal.default_int_handler)
    try:
        summary = run_index(settings, Progress())
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to resume", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo(json.dumps(asdict(summary)) if as_json else _report(summary))


def _report(summary: IndexSummary) -> str:
    out = shlex.quote(summary.collection)
    if summary.unchanged:
        first = f"unchanged: {summary.indexed:,} images in {summary.collection}, version {summary.version}"
    else:
        first = f"indexed {summary.indexed:,} images into {summary.collection}, version {summary.version}"
    lines = [first, *_counts(summary), *quality(summary.store, summary.recall)]
    return "\n".join([*lines, f"next:  lookalike serve {out}   or   lookalike search {out} --text '...'"])


def _counts(summary: IndexSummary) -> list[str]:
    codes = ", ".join(f"{count:,} {code}" for code, count in summary.rejected_by_code.items())
    rejected = f" ({codes}; see rejected.parquet in the version's folder)" if codes else ""
    lines = [f"  {summary.seen:,} seen = {summary.indexed:,} indexed + {summary.rejected:,} rejected{rejected}"]
    if summary.encoded:
        lines.append(
            f"  {summary.encoded:,} encoded with {summary.encoder} ({summary.engine}), {summary.reused:,} reused; "
            f"{summary.images_per_second:.0f} images/s, {summary.seconds:.1f} s in all"
        )
    if summary.replaced_encoder:
        lines.append(f"  the version before was made by {summary.replaced_encoder}")
    if summary.dropped:
        lines.append(f"  {summary.dropped:,} images of the version before are not in these sources and were dropped")
    return lines
