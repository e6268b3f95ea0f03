"""`lookalike import`: another tool's embeddings -> a collection, without encoding anything again."""

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
    from indexing.importing.job import ImportSummary

_INTERRUPTED = 130


def import_embeddings(
    source: Annotated[
        Path, typer.Argument(help="Folder of embeddings (.npy) and metadata (.parquet), one .npy, or a FAISS index.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the collection; made if need be.", show_default=False)],
    encoder: Annotated[
        str, typer.Option(help="Name of the encoder that made the vectors; queries go through it.", show_default=False)
    ],
    metadata: Annotated[
        Path | None, typer.Option(help="Parquet file or folder of them.", show_default="beside the vectors")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--pictures", help="Folder to look for the images in, by the ends of their paths.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column of unique ids.", show_default="id, key, path, url or image_path")
    ] = None,
    path_column: Annotated[str | None, typer.Option(help="Column of image paths.", show_default="by name")] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="Column of captions.", show_default="caption or text")
    ] = None,
    store: Store = "auto",
    memory: Memory = None,
    recall: Recall = 0.95,
    latency: Latency = None,
    explain: Explain = False,
    workers: Annotated[int | None, typer.Option(help="Decode threads.", min=1, show_default="one a core")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; of the encoder.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, torch or openvino; of the encoder.")] = "auto",
    replace: Annotated[bool, typer.Option("--replace", help="Put the import in a collection's place.")] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Take vectors that do not look like the encoder's.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Make a collection of embeddings that clip-retrieval, img2dataset or FAISS left.

    Vectors may be float16, float32 or float64, of any norm; their counts are checked against the metadata's, file by
    file. Rows whose image is at hand get a thumbnail; the first of them are encoded again, to see whether the
    vectors are this encoder's.

    Example:  lookalike import embeddings/ --out images --encoder open_clip:ViT-B-32/openai --pictures ~/Pictures

    Example:  lookalike import image.index --metadata metadata/ --out laion --encoder open_clip:ViT-L-14/openai
    """
    from indexing.importing.job import ImportSettings, run_import  # torch, FAISS, Arrow: only when there is work
    from indexing.progress import Progress
    from lookalike.bootstrap import EngineOptions
    from lookalike.sources.item import ColumnNames

    columns = ColumnNames(id_column, path_column, caption_column)
    budget = index_budget(recall, memory, latency, explain)
    settings = ImportSettings(
        source, out, encoder, metadata, images, columns, store, budget, workers,
        EngineOptions(device, engine), replace=replace, unchecked=unchecked,
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        summary = run_import(settings, Progress())
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was changed", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    typer.echo(json.dumps(asdict(summary)) if as_json else _report(summary))


def _report(summary: ImportSummary) -> str:
    out = shlex.quote(summary.collection)
    codes = ", ".join(f"{count:,} {code}" for code, count in summary.rejected_by_code.items())
    rejected = f" ({codes}; see rejected.parquet in the version's folder)" if codes else ""
    lines = [
        f"imported {summary.indexed:,} vectors into {summary.collection}, version {summary.version}",
        f"  {summary.seen:,} seen = {summary.indexed:,} indexed + {summary.rejected:,} rejected{rejected}",
        f"  {summary.pictures:,} images at hand{_agreement(summary)}",
    ]
    if summary.approximate:
        lines.append("  the index holds codes, not vectors: what it gave back is approximate, and so are scores")
    lines += [*quality(summary.store, summary.recall), f"  {summary.seconds:.1f} s"]
    return "\n".join([*lines, f"next:  lookalike serve {out}"])


def _agreement(summary: ImportSummary) -> str:
    if summary.agreement is None:
        return ""
    return f"; {summary.checked} of them encoded again: median cosine {summary.agreement:.4f} with their vectors"
