"""`lookalike add`: images into a collection that exists, in its folder or through a running service."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.write_options import CollectionOption, KeyOption, UrlOption, compact_hint, json_object, require_service
from cli.write_report import WriteOutcome, WriteReport
from lookalike.errors import SourceError
from lookalike.messages import listed

if TYPE_CHECKING:
    from indexing.progress import Progress

_INTERRUPTED = 130


def add(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="COLLECTION", help="Folder of the collection. It is left out with `--url`.", show_default=False
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image; or a folder, webdataset .tar file, Parquet file or glob pattern of images. NAME=PATH adds the "
            "prefix NAME/ to ids. Repeatable.",
            show_default=False,
        ),
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    collection: CollectionOption = None,
    id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Id of the item, for a single image.", show_default="its path in the folder"),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Text before every id, such as shoes/.")] = "",
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Metadata of all images: an object of values by column.")
    ] = None,
    if_new: Annotated[
        bool, typer.Option("--if-new", help="Skip images whose ids exist, instead of replacing.")
    ] = False,
    max_pixels: Annotated[
        int,
        typer.Option(
            help="Maximum width x height of an image as it is decoded, in pixels. A service has its own limit.", min=1
        ),
    ] = 64_000_000,
    encoder: Annotated[
        str | None, typer.Option(help="Name of the collection's encoder, for weights that have moved.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the encoder: auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="Runtime of the encoder: auto, torch or openvino.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts and errors as one line of JSON.")] = False,
) -> None:
    """Add images to a collection without indexing it again, or replace some of its items.

    Ids are the same as those of `lookalike index`: paths relative to the folder. Captions and metadata beside an image
    are read, too. An image that fails is named on stderr, and the exit status is 1.

    In a folder, no other process may write to the collection meanwhile. A writable service does, all the time: write
    through it with `--url`; its next search finds the images.

    Example:  lookalike add images new.jpg more/ --metadata '{"brand": "acme"}'

    Example:  lookalike add images shoe.jpg --id shoes/4711

    Example:  lookalike add --url http://127.0.0.1:8000 ~/Pictures/2026 --prefix 2026/ --if-new
    """
    given_paths = [each for each in (target, *(images or [])) if each is not None]
    root, paths = (None, given_paths) if url is not None or target is None else (Path(target), given_paths[1:])
    require_service(url, collection)
    if not paths or (root is None and url is None):
        raise typer.BadParameter("pass the folder of a collection, and the images to add: files or folders")
    given = json_object(metadata, "--metadata")

    from cli.new_items import NewItems  # imports Arrow: not for `--help`
    from indexing.progress import Progress
    from lookalike.writes.columns import require_metadata

    require_metadata(given)
    items = NewItems(paths, given, id, prefix)
    report = WriteReport()
    with ExitStack() as opened:
        if root is None:
            from cli import service_writes

            client = opened.enter_context(service_writes.opened_service(str(url), key, collection))
            batches = service_writes.add_images(items, client, if_new=if_new)
        else:
            from cli import folder_writes
            from lookalike.bootstrap import EngineOptions

            stored, writer = opened.enter_context(folder_writes.opened_writer(root))
            loaded = folder_writes.collection_encoder(stored, encoder, EngineOptions(device, engine))
            batches = folder_writes.add_images(items, writer, loaded, if_new=if_new, max_pixels=max_pixels)
        opened.enter_context(closing(batches))  # ends its threads before the writer is closed
        progress = opened.enter_context(Progress())
        progress.begin(items.estimated_count())
        try:
            _count(batches, report, progress)
        finally:
            progress.close()
            report.print_errors()
            if not as_json:
                typer.echo(report.added())
    if not report.counts.total():
        raise SourceError(f"there are no images in {listed(paths)}")
    if as_json:
        typer.echo(report.as_json(("created", "replaced", "skipped", "failed")))
    elif root is not None and report.counts["created"] + report.counts["replaced"]:
        typer.echo(compact_hint(root))
    if report.failed:
        raise typer.Exit(1)


def _count(batches: Iterable[list[WriteOutcome]], report: WriteReport, progress: Progress) -> None:
    try:
        for batch in batches:
            for outcome in batch:
                report.add(outcome)
            results = [outcome.result for outcome in batch]
            failed, skipped = results.count("failed"), results.count("skipped")
            progress.add(encoded=len(batch) - failed - skipped, rejected=failed, reused=skipped)
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again, with --if-new, to continue", err=True)
        raise typer.Exit(_INTERRUPTED) from None
