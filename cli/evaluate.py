"""`lookalike evaluate`: how well an encoder finds photographs, as a table or as one line of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    encoder: Annotated[str, typer.Argument(help="The encoder's name; `lookalike encoders` lists them.")],
    data: Annotated[
        Path,
        typer.Option("--data", help="A tar of key.jpg + key.txt (a caption a line), or a folder of class folders."),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of the table.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, torch or openvino.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
) -> None:
    """Measure how well an encoder finds photographs.

    With a tar, each caption seeks its photograph and each photograph its captions: R@1, R@5, R@10, ranks.
    With a folder of class folders, "a photo of a CLASS" seeks the pictures of that class: P@10, zero-shot accuracy.

    Example:  lookalike evaluate lite --data flickr8k/val.tar

    Example:  lookalike evaluate open_clip:ViT-B-32/laion2b_s34b_b79k --data products/ --json
    """
    from tqdm import tqdm

    from evaluation.measure import measure
    from evaluation.report import as_json, as_table
    from retrieval.bootstrap import load_encoder

    loaded = load_encoder(encoder, device=device, engine=engine, precision=precision)
    with tqdm(unit=" photographs", desc="encode", leave=False, disable=None) as bar:
        report = measure(loaded, data, progress=bar.update)
    typer.echo(as_json(report) if json else as_table(report))
