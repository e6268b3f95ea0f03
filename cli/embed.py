"""`lookalike embed`: embeddings of images or texts, without a collection."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.search import text_lines
from lookalike.errors import SourceError
from lookalike.messages import number_of

if TYPE_CHECKING:
    from indexing.embedding.embed import Embedded
    from indexing.embedding.files import EmbeddingWriter, Kind
    from indexing.progress import Progress
    from lookalike.encoders.protocol import Encoder

_INTERRUPTED = 130


def embed(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image; or a folder, webdataset .tar file, Parquet file or glob pattern of images. Repeatable.",
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of texts, one a line; - for stdin. In place of IMAGE.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Name of the encoder; `lookalike encoders` lists them.")] = "lite",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write: .npy, .parquet or .jsonl. It is replaced only when all is written.",
            show_default="JSON lines on stdout",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of threads that decode images.", min=1, show_default="one per core")
    ] = None,
    max_pixels: Annotated[
        int,
        typer.Option(
            help="Maximum width x height of an image as it is decoded, in pixels; larger ones are rejected unread.",
            min=1,
        ),
    ] = 64_000_000,
    device: Annotated[str, typer.Option(help="Device of the encoder: auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="Runtime of the encoder: auto, torch or openvino.")] = "auto",
) -> None:
    """Print or save the embeddings of images, or of texts.

    They are float32 vectors of unit norm, so that a product of two is their cosine. Each input has one row, in order.

    An input that fails is named on stderr, and the exit status is 1. Its row in JSON lines and Parquet has the error in
    `code` and `detail`; in .npy it is NaN.

    Example:  lookalike embed cat.jpg dog.jpg

    Example:  lookalike embed ~/Pictures --out pictures.parquet

    Example:  lookalike embed --texts captions.txt --out captions.npy
    """
    if bool(images) == (texts is not None):
        raise typer.BadParameter("pass images, or --texts FILE: one of them")

    from indexing.embedding.embed import ImageInputs, embed_images, embed_texts  # import torch: not for `--help`
    from indexing.embedding.files import require_known_suffix
    from indexing.progress import Progress
    from lookalike.bootstrap import EngineOptions, load_encoder
    from lookalike.cores import available_cores

    if out is not None:
        require_known_suffix(out)
    if texts is not None and str(texts) != "-":
        texts.open("rb").close()  # a mistaken path is reported before the encoder is loaded
    loaded = load_encoder(encoder, EngineOptions(device, engine))
    kind: Kind = "image" if texts is None else "text"
    progress = Progress(quiet=out is None and sys.stdout.isatty(), unit=f"{kind}s")
    if texts is None:
        inputs = ImageInputs(images or [])
        progress.begin(inputs.estimated_count())
        results = embed_images(inputs, loaded, max_pixels, workers or available_cores())
    else:
        progress.begin(None)
        results = embed_texts(text_lines(texts), loaded)
    try:
        failed = _write(results, loaded, kind, out, progress)
    except KeyboardInterrupt:
        typer.echo("interrupted; no file was written" if out else "interrupted", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if failed:
        raise typer.Exit(1)


def _write(
    batches: Iterable[list[Embedded]], encoder: Encoder, kind: Kind, out: Path | None, progress: Progress
) -> int:
    """Write all outcomes, print errors and a summary on stderr; return the number of inputs that failed."""
    errors, truncated = [], 0
    with progress, _opened(out, encoder.spec.dim, kind) as writer:
        for batch in batches:
            for number, result in enumerate(batch, progress.done + 1):
                writer.add(result)
                truncated += result.truncated_tokens > 0
                if result.error is not None:
                    name = result.name if kind == "image" else f"line {number}"
                    errors.append(f"error: {name}: {result.error} [{result.error.code}]")
            failed = sum(result.error is not None for result in batch)
            progress.add(encoded=len(batch) - failed, rejected=failed)
        if not progress.done:
            raise SourceError(f"there are no {kind}s to embed")
    for line in errors:
        typer.echo(line, err=True)
    if truncated:
        typer.echo(f"note: the encoder did not read the end of {number_of(truncated, 'text')}: too long", err=True)
    if out is not None:
        rejected = f", {progress.rejected:,} failed" if progress.rejected else ""
        vectors = number_of(progress.encoded, "embedding")
        typer.echo(f"{vectors} of {encoder.spec.dim} dimensions by {encoder.spec.name} in {out}{rejected}")
    return progress.rejected


def _opened(out: Path | None, dim: int, kind: Kind) -> AbstractContextManager[EmbeddingWriter]:
    from indexing.embedding.files import embedding_file

    return _standard_output(kind) if out is None else embedding_file(out, dim, kind)


@contextmanager
def _standard_output(kind: Kind) -> Iterator[EmbeddingWriter]:
    from indexing.embedding.files import JsonLinesWriter

    writer = JsonLinesWriter(sys.stdout, kind)
    yield writer
    writer.close()
