"""`lookalike train`: a configuration and data -> an encoder's folder, or the heads of `lite`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from training.run.result import Result

_INTERRUPTED, _NOT_PROMOTED = 130, 3
_OF_LITE = ("metrics", "cache")
_NOT_OF_LITE = ("validation", "base", "epochs", "force", "device", "workers")


def train(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="TOML file; configs/ holds one for each method.")],
    out: Annotated[Path, typer.Option(help="Folder of the encoder (for configs/lite.toml: a safetensors file).")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Folder, tar, Parquet file or pattern; may be repeated.", show_default="the configuration's"),
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="What the result is judged by.", show_default="a tenth of the data")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Encoder to start from.", show_default="the configuration's, or lite")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the images.", show_default="the configuration's")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write the encoder even where the base is better.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Processes that prepare images.", min=0)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")] = False,
    metrics: Annotated[
        Path | None, typer.Option(help="lite's recipe: file for each step's loss.", show_default="OUT.metrics.jsonl")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="lite's recipe: folder for features.", show_default="in LOOKALIKE_CACHE")
    ] = None,
) -> None:
    """Train an encoder by contrast, from a user's labelled, captioned or unlabelled images.

    What comes out is an encoder like any other, `folder:OUT`, if it is better on held-out images than what it
    started from. Stop it at any time: the same command goes on where the last checkpoint stands (in OUT.work).
    Several processes train together under `torchrun --nproc-per-node N -m cli.main train ...`.

    Example:  lookalike train configs/triplet.toml --data products/ --out my-encoder

    Example:  lookalike train configs/clip.toml --data pairs.tar --base open_clip:ViT-B-32/openai --out my-clip

    Example:  lookalike train configs/lite.toml --data flickr8k --out lite.safetensors
    """
    from training.settings import read_toml

    document = read_toml(config)
    recipe = "lite" in document
    _refuse_meaningless(context, config, _NOT_OF_LITE if recipe else _OF_LITE)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        if recipe:
            return _train_lite(config, data or [], out, metrics, cache, as_json=as_json)
        given = {"data.train": data, "data.validation": validation, "base.encoder": base, "optimizer.epochs": epochs}
        result = _train(document, config, out, given, device=device, workers=workers, force=force)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; run the same command again to {'start over' if recipe else 'resume'}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if int(os.environ.get("RANK", "0")) == 0:  # torchrun's others know nothing else
        typer.echo(json.dumps(asdict(result)) if as_json else _report(result))
        if as_json and not result.promoted:
            typer.echo(_report(result), err=True)
    if not result.promoted:
        raise typer.Exit(_NOT_PROMOTED)


def _train(document: dict[str, Any], config: Path, out: Path, given: dict[str, Any], **options: Any) -> Result:
    from training.settings import settings_from

    settings_from(document, str(config))  # what is wrong in the file itself is said of the file, and before torch loads
    for key, value in given.items():
        table, _, name = key.partition(".")
        if value is not None:
            document.setdefault(table, {})[name] = value
    settings = settings_from(document, "the command line")

    from training.run.trainer import run_training

    command = shlex.join(["lookalike", *sys.argv[1:]])
    return run_training(settings, out, command=command, **options)


def _refuse_meaningless(context: typer.Context, config: Path, names: tuple[str, ...]) -> None:
    """What the configuration has no use for must not pass for heeded."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{name} means nothing to {config}; leave it out")


def _train_lite(
    config: Path, data: list[str], out: Path, metrics: Path | None, cache: Path | None, *, as_json: bool
) -> None:
    from lookalike.encoders.engines import cache_folder
    from training.lite.config import load_config
    from training.lite.run import run_lite

    if len(data) != 1:
        raise typer.BadParameter("the recipe of lite takes one --data: a folder with train.tar")
    log = metrics or out.with_name(out.name + ".metrics.jsonl")
    digest = run_lite(load_config(config), Path(data[0]), out, log, cache or cache_folder() / "training")
    if as_json:
        typer.echo(json.dumps({"out": str(out), "sha256": digest, "metrics": str(log)}))
    else:
        typer.echo(f"{out}: SHA-256 {digest}; losses in {log}")


def _report(result: Result) -> str:
    base, trained = result.base, result.trained
    figures = f"{result.figure} on held-out images {base.seen:.4f} by the base, {trained.seen:.4f} after training"
    if base.unseen is not None and trained.unseen is not None:
        figures += f"; on classes it never saw {base.unseen:.4f} and {trained.unseen:.4f}"
    if trained.share < 1:
        figures += f"; with {trained.share:.0%} of the trained weights"
    took = f"{result.steps:,} steps in {result.seconds / 60:.1f} minutes"
    if not result.promoted:
        why = "training made it no better" if trained.seen < base.seen else "it lost on classes that it never saw"
        return (
            f"not promoted: {figures} ({took})\n"
            f"  {why}, so nothing was written to {result.out}; --force writes it all the same"
        )
    if not trained.holds_against(base):
        figures = f"worse than the base, written for --force: {figures}"
    out = shlex.quote(result.out)
    return (
        f"{result.out}: {figures} ({took})\n"
        f"next:  lookalike evaluate folder:{out} --data ...   or   lookalike index ... --encoder folder:{out}"
    )
