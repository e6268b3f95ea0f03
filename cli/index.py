"""`lookalike index`: runs the indexing job and prints a summary, as text or one line of JSON."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.store_options import Explain, Latency, Memory, Recall, Store, store_report
from lookalike.messages import listed, number_of
from lookalike.sources.scan_report import counted

if TYPE_CHECKING:
    from indexing.job import IndexSummary

_INTERRUPTED = 130


def index(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Folder of images, webdataset .tar file, Parquet file, or a glob pattern of these, also in a bucket: "
            "s3://BUCKET/KEY. NAME=PATH puts NAME/ before the ids. Repeatable.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the collection; created if it does not exist.", show_default=False)
    ],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Name of the encoder; `lookalike encoders` lists them.", show_default="the collection's, or lite"
        ),
    ] = None,
    store: Store = "auto",
    memory: Memory = None,
    recall: Recall = 0.95,
    latency: Latency = None,
    explain: Explain = False,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Number of images per batch of the encoder.", min=1, show_default="32, or 256 on a GPU"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of threads that read and decode images.",
            min=1,
            show_default="one per core, from a bucket at least 16",
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Column of unique ids in a Parquet file.", show_default="id, key, path or url, else a hash"),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of image bytes or paths in a Parquet file.", show_default="found by type")
    ] = None,
    caption_column: Annotated[
        str | None,
        typer.Option(
            help="Column of captions in a Parquet or metadata file, or key in a JSON file.",
            show_default="caption or text",
        ),
    ] = None,
    max_pixels: Annotated[
        int,
        typer.Option(
            help="Maximum width x height of an image as it is decoded, in pixels; larger ones are rejected unread.",
            min=1,
        ),
    ] = 64_000_000,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave files and folders out of folders, in gitignore syntax: '*.png', 'drafts/'. !PATTERN includes "
            "again, also what is left out by default. Repeatable.",
            show_default="@eaDir, #recycle and the like",
        ),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keep encoded images below s3://BUCKET/PATH until the version is published.",
            show_default="in the collection's folder",
        ),
    ] = None,
    runner: Annotated[
        str, typer.Option(help="Where images are encoded: local, in this process, or ray, on a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the Ray cluster.",
            show_default="the cluster on this machine, or of RAY_ADDRESS",
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            help="GPUs of each encoding process on the Ray cluster; 0.5 lets two share one, 0 encodes on CPUs.",
            show_default="1 where the cluster has GPUs",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the encoder: auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="Runtime of the encoder: auto, torch or openvino.")] = "auto",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Allow sources that share no image with the existing collection to replace it."),
    ] = False,
    verify_content: Annotated[
        bool,
        typer.Option(
            "--verify-content",
            help="Read all files, and encode those whose content changed although size and modification time did not.",
        ),
    ] = False,
    allow_dropping: Annotated[
        bool,
        typer.Option("--allow-dropping", help="Allow more than a tenth of the collection's images to be removed."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Encode images into a collection, or update a collection.

    Run the same command again after images were added, changed or removed: only new and changed images are encoded.
    Renamed, moved and copied images are recognised by their content. An interrupted job resumes where it stopped.
    Images that can't be read are listed in `rejected.parquet`. Other files in folders are counted by extension.
    docs/guides/index-images.md is the guide.

    Example:  lookalike index ~/Pictures --out images

    Example:  lookalike index 'part-*.tar' more=extra.tar --out gallery --encoder open_clip:ViT-B-32/laion2b_s34b_b79k

    Example:  lookalike index ~/Pictures --out images --memory 300MB --recall 0.97 --latency 5ms --explain

    Example:  lookalike index s3://bucket/photos --out images

    Example:  lookalike index s3://bucket/photos --out images --runner ray --address head:6379

    Example:  lookalike index products.parquet --id-column sku --caption-column title --out products
    """
    from indexing.api import index as run_job  # imports torch, OpenVINO, Arrow: not for `--help`

    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a script's background job ignores it
        signal.signal(number, signal.default_int_handler)
    try:
        with redirect_stdout(sys.stderr):  # Ray prints what its machines report
            summary = run_job(
                sources,
                out,
                encoder=encoder,
                store=store,
                memory=memory,
                recall=recall,
                latency=latency,
                explain=explain,
                batch_size=batch_size,
                workers=workers,
                id_column=id_column,
                image_column=image_column,
                caption_column=caption_column,
                max_pixels=max_pixels,
                device=device,
                engine=engine,
                replace=replace,
                verify_content=verify_content,
                allow_dropping=allow_dropping,
                exclude=exclude,
                shards=shards,
                runner=runner,
                address=address,
                gpus_per_worker=gpus_per_worker,
                progress=True,
            )
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to resume", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo(json.dumps(asdict(summary)) if as_json else summary_text(summary))


def summary_text(summary: IndexSummary) -> str:
    """Return the lines that describe the result, with a command to continue."""
    out = shlex.quote(summary.collection)
    if summary.unchanged:
        first = f"unchanged: {number_of(summary.indexed, 'image')} in {summary.collection}, version {summary.version}"
    else:
        first = f"indexed {number_of(summary.indexed, 'image')} into {summary.collection}, version {summary.version}"
    lines = [first, *_counts(summary), *store_report(summary.store, summary.recall)]
    query = "--text" if summary.text else "--image"
    return "\n".join([*lines, f"next:  lookalike serve {out}   or   lookalike search {out} {query} '...'"])


def written_line(written: int, left_out: int) -> str:
    """Return the line about items that writes made, and about those of the sources that they replace."""
    items, images = number_of(written, "item"), number_of(left_out, "image")
    return f"  {items} that writes made; {images} of the sources left out, which a write put or deleted"


def _scan_notes(summary: IndexSummary) -> list[str]:
    from lookalike.sources import parquet, tar  # import Arrow, as the job did

    lines = []
    if summary.images_by_machine:
        machines = counted(summary.images_by_machine)
        lines.append(f"  encoded on {number_of(len(summary.images_by_machine), 'machine')} ({machines})")
    if summary.truncated:
        lines.append(f"  {summary.truncated:,} truncated, read as far as they go (column `truncated`)")
    kinds = {*tar.SUFFIXES, *parquet.SUFFIXES}
    if shards := [extension for extension in summary.skipped_by_extension if extension in kinds]:
        lines.append(
            f"  {', '.join(shards)} files beside images are not read: name them as sources, such as "
            f"'FOLDER/**/*{shards[0]}', to index the images in them"
        )
    if summary.excluded:
        lines.append(f"  {summary.excluded:,} files and folders excluded ({counted(summary.excluded_by_pattern)})")
    if summary.left_out_columns:
        columns = listed([f"{name} ({content})" for name, content in summary.left_out_columns.items()])
        lines.append(f"  columns left out of the metadata: {columns}")
    if summary.unlisted_folders:
        names = listed(summary.unlisted_folders)
        lines.append(f"  {number_of(len(summary.unlisted_folders), 'folder')} can't be listed or entered: {names}")
    if summary.unread_files:
        files = number_of(len(summary.unread_files), "file")
        lines.append(f"  {files} can't be read now: {listed(summary.unread_files)}")
    if summary.kept:
        images, were = number_of(summary.kept, "image"), "was" if summary.kept == 1 else "were"
        lines.append(f"  {images} that can't be reached now {were} kept from the previous version")
    return lines


def _counts(summary: IndexSummary) -> list[str]:
    codes = ", ".join(f"{count:,} {code}" for code, count in summary.rejected_by_code.items())
    rejected = f" ({codes}; see rejected.parquet in the version's folder)" if codes else ""
    skipped = f" ({counted(summary.skipped_by_extension)})" if summary.skipped else ""
    lines = [
        f"  {summary.seen:,} seen = {summary.indexed:,} indexed + {summary.rejected:,} rejected{rejected} + "
        f"{summary.skipped:,} skipped{skipped}",
        *_scan_notes(summary),
    ]
    recognised = f", {summary.recognised:,} of them recognised by content" if summary.recognised else ""
    if summary.encoded:
        lines.append(
            f"  {summary.encoded:,} encoded with {summary.encoder} ({summary.engine}), {summary.reused:,} reused"
            f"{recognised}; {summary.images_per_second:.0f} images/s, {summary.seconds:.1f} s in total"
        )
    elif recognised:
        lines.append(f"  {summary.reused:,} reused{recognised}; {summary.seconds:.1f} s in total")
    if summary.verified or summary.edited:
        compared = summary.verified + summary.edited
        lines.append(f"  {compared:,} compared by content: {summary.edited:,} changed, though size and time did not")
    if summary.replaced_encoder:
        again = "" if summary.reused else ", so that all images were encoded again"
        lines.append(f"  the previous version was encoded with {summary.replaced_encoder}{again}")
    if summary.written or summary.left_out_written:
        lines.append(written_line(summary.written, summary.left_out_written))
    if summary.dropped:
        are, were = ("is", "was") if summary.dropped == 1 else ("are", "were")
        images = number_of(summary.dropped, "image")
        lines.append(f"  {images} of the previous version {are} not in these sources and {were} removed")
    return lines
