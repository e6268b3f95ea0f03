"""`lookalike import`: a collection from another tool's embeddings, without encoding the images again."""

from __future__ import annotations

import json
import shlex
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.index import written_line
from cli.store_options import Explain, Latency, Memory, Recall, Store, store_report

if TYPE_CHECKING:
    from indexing.importing.job import ImportSummary

_INTERRUPTED = 130


def import_embeddings(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of embeddings (.npy) and metadata (.parquet), one .npy file, or a FAISS index."),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the collection; created if it does not exist.", show_default=False)
    ],
    encoder: Annotated[
        str, typer.Option(help="Name of the encoder that made the vectors. It encodes the queries.", show_default=False)
    ],
    metadata: Annotated[
        Path | None,
        typer.Option(help="Metadata: a Parquet file, or a folder of Parquet files.", show_default="beside the vectors"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--pictures", help="Folder of the images. They are found by the ends of their paths."),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column of unique ids.", show_default="id, key, path, url or image_path")
    ] = None,
    number_rows: Annotated[
        bool,
        typer.Option("--number-rows", help="Make ids from row numbers: 0 is the first row of all files."),
    ] = False,
    path_column: Annotated[
        str | None, typer.Option(help="Column of image paths.", show_default="found by its name")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="Column of captions.", show_default="caption or text")
    ] = None,
    store: Store = "auto",
    memory: Memory = None,
    recall: Recall = 0.95,
    latency: Latency = None,
    explain: Explain = False,
    workers: Annotated[
        int | None, typer.Option(help="Number of threads that decode images.", min=1, show_default="one per core")
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the encoder: auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="Runtime of the encoder: auto, torch or openvino.")] = "auto",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the items of an existing collection.")] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Accept vectors that don't match the encoder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Make a collection from the embeddings of clip-retrieval, img2dataset or FAISS.

    Vectors may be float16, float32 or float64, of any norm. Each file must have as many vectors as its metadata has
    rows. A row whose id occurred before gets a number after it, such as KEY#2. Rows whose image is available get a
    thumbnail. A few of these images are encoded to check that the vectors are this encoder's.
    docs/guides/import-embeddings.md is the guide.

    Example:  lookalike import embeddings/ --out images --encoder open_clip:ViT-B-32/openai --pictures ~/Pictures

    Example:  lookalike import image.index --metadata metadata/ --out laion --encoder open_clip:ViT-L-14/openai
    """
    from indexing.build.budget import parse_budget
    from indexing.importing.job import ImportSettings, run_import  # imports torch, FAISS, Arrow: not for `--help`
    from indexing.progress import Progress
    from lookalike.bootstrap import EngineOptions
    from lookalike.sources.item import ColumnNames

    columns = ColumnNames(id_column, path_column, caption_column)
    budget = parse_budget(recall, memory, latency, explain)
    settings = ImportSettings(
        source, out, encoder, metadata, images, columns, store, budget, workers,
        EngineOptions(device, engine), replace=replace, unchecked=unchecked, number_rows=number_rows,
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        summary = run_import(settings, Progress())
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was changed", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo(json.dumps(asdict(summary)) if as_json else summary_text(summary))


def summary_text(summary: ImportSummary) -> str:
    """Return the summary in words, with the next command."""
    out = shlex.quote(summary.collection)
    codes = ", ".join(f"{count:,} {code}" for code, count in summary.rejected_by_code.items())
    rejected = f" ({codes}; see rejected.parquet in the version's folder)" if codes else ""
    lines = [
        f"imported {summary.indexed:,} vectors into {summary.collection}, version {summary.version}",
        f"  {summary.seen:,} seen = {summary.indexed:,} indexed + {summary.rejected:,} rejected{rejected}",
        f"  {summary.pictures:,} images available{_agreement(summary)}",
    ]
    if summary.written or summary.left_out_written:
        lines.append(written_line(summary.written, summary.left_out_written))
    if summary.repeated_ids:
        lines.append(
            f"  {summary.repeated_ids:,} rows repeat an id: #2, #3 and so on stand after theirs; "
            "--number-rows makes ids from row numbers instead"
        )
    if summary.approximate:
        lines.append(
            "  the index stores codes instead of vectors: the imported vectors and their scores are approximate"
        )
    lines += [*store_report(summary.store, summary.recall), f"  {summary.seconds:.1f} s"]
    return "\n".join([*lines, f"next:  lookalike serve {out}"])


def _agreement(summary: ImportSummary) -> str:
    if summary.agreement is None:
        return ""
    return f"; {summary.checked} of them encoded: median cosine {summary.agreement:.4f} with their vectors"
