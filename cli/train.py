"""`lookalike train`: a configuration and a folder of captioned photographs -> the heads of an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="TOML file; configs/lite.toml made the released encoder.")],
    data: Annotated[Path, typer.Option("--data", help="Folder with train.tar: key.jpg + key.txt, a caption a line.")],
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")],
    metrics: Annotated[
        Path | None, typer.Option("--metrics", help="JSON-lines file for each step's loss; default: OUT.metrics.jsonl.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder for computed features; default: beside LOOKALIKE_CACHE's.")
    ] = None,
) -> None:
    """Train the heads of the encoder `lite` from scratch.

    The first run computes features of all photographs (minutes), later ones read them from the cache and take about
    a minute. The same data, configuration and machine give the same file.

    Example:  lookalike train configs/lite.toml --data flickr8k --out lite.safetensors
    """
    from retrieval.encoders.engines import cache_folder
    from training.config import load_config
    from training.run import run_lite

    loaded = load_config(config)
    log = metrics or out.with_name(out.name + ".metrics.jsonl")
    digest = run_lite(loaded, data, out, log, cache or cache_folder() / "training")
    typer.echo(f"{out}: SHA-256 {digest}; losses in {log}")
