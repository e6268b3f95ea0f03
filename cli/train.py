"""`lookalike train`: trains an encoder, or the heads of the `lite` encoder, by a configuration file."""

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
    from training.run.result import TrainingResult

_INTERRUPTED, _NOT_PROMOTED = 130, 3
_LITE_ONLY = ("metrics", "cache")
_NOT_FOR_LITE = ("validation", "base", "epochs", "force", "device", "workers")


def train(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Argument(
            help="Configuration: a TOML file. The folder configs/ of the repository has one for each objective."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to write the encoder to; with configs/lite.toml, a safetensors file.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Training images: a folder, tar file, Parquet file or glob pattern. Repeatable.",
            show_default="the configuration's",
        ),
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(help="Validation images, like --data. Repeatable.", show_default="a tenth of the data"),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Encoder to start from.", show_default="the configuration's, or lite")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Number of epochs; may be a fraction.", show_default="the configuration's")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the encoder even if it is worse than its base.")
    ] = False,
    device: Annotated[str, typer.Option(help="Device of the training: auto, cpu or cuda.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Number of processes that prepare images.", min=0, show_default="at most two")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")] = False,
    metrics: Annotated[
        Path | None,
        typer.Option(
            help="Only for configs/lite.toml: file for the loss of each step.", show_default="OUT.metrics.jsonl"
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Only for configs/lite.toml: folder for cached features.", show_default="training in the cache folder"
        ),
    ] = None,
) -> None:
    """Train an encoder contrastively on labelled, captioned or unlabelled images.

    Use the result like any other encoder, as `folder:OUT`. It is written only if it is no worse than its base on
    held-out images. Otherwise the exit status is 3.

    Run the same command again to resume an interrupted run from its last checkpoint, in OUT.work.

    For several GPUs: `torchrun --nproc-per-node N -m cli.main train ...`.

    docs/guides/fine-tune.md is the guide, and docs/reference/training-configuration.md lists the configuration's keys.

    Example:  lookalike train configs/triplet.toml --data products/ --out my-encoder

    Example:  lookalike train configs/clip.toml --data pairs.tar --base open_clip:ViT-B-32/openai --out my-clip

    Example:  lookalike train configs/lite.toml --data flickr8k --out lite.safetensors
    """
    from training.settings import read_toml

    document = read_toml(config)
    lite = "lite" in document
    _reject_inapplicable(context, config, _NOT_FOR_LITE if lite else _LITE_ONLY)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        if lite:
            return _train_lite(config, data or [], out, metrics, cache, as_json=as_json)
        overrides = {
            "data.train": data,
            "data.validation": validation,
            "base.encoder": base,
            "optimizer.epochs": epochs,
        }
        result = _train(document, config, out, overrides, device=device, workers=workers, force=force)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; run the same command again to {'start over' if lite else 'resume'}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if int(os.environ.get("RANK", "0")) == 0:  # with torchrun, one process reports
        typer.echo(json.dumps(asdict(result)) if as_json else _report(result))
        if as_json and not result.promoted:
            typer.echo(_report(result), err=True)
    if not result.promoted:
        raise typer.Exit(_NOT_PROMOTED)


def _train(
    document: dict[str, Any], config: Path, out: Path, overrides: dict[str, Any], **options: Any
) -> TrainingResult:
    from training.settings import settings_from

    settings_from(document, str(config))  # errors of the file name the file, before torch loads
    for key, value in overrides.items():
        table, _, name = key.partition(".")
        if value is not None:
            document.setdefault(table, {})[name] = value
    settings = settings_from(document, "the command line")

    from training.run.trainer import run_training

    command = shlex.join(["lookalike", *sys.argv[1:]])
    return run_training(settings, out, command=command, **options)


def _reject_inapplicable(context: typer.Context, config: Path, names: tuple[str, ...]) -> None:
    """Raise BadParameter for an option that the configuration ignores."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{name} does not apply to {config}; remove it")


def _train_lite(
    config: Path, data: list[str], out: Path, metrics: Path | None, cache: Path | None, *, as_json: bool
) -> None:
    from lookalike.encoders.engines import cache_folder
    from training.lite.config import load_config
    from training.lite.run import run_lite

    if not data:
        raise typer.BadParameter("configs/lite.toml needs --data: a folder with train.tar; repeat it for more sets")
    log = metrics or out.with_name(out.name + ".metrics.jsonl")
    digest = run_lite(
        load_config(config), [Path(folder) for folder in data], out, log, cache or cache_folder() / "training"
    )
    if as_json:
        typer.echo(json.dumps({"out": str(out), "sha256": digest, "metrics": str(log)}))
    else:
        typer.echo(f"{out}: SHA-256 {digest}; losses in {log}")


def _report(result: TrainingResult) -> str:
    base, trained = result.base, result.trained
    figures = f"{result.figure} on held-out images {base.seen:.4f} by the base, {trained.seen:.4f} after training"
    if base.unseen is not None and trained.unseen is not None:
        figures += f"; on unseen classes {base.unseen:.4f} and {trained.unseen:.4f}"
    if trained.share < 1:
        figures += f"; with {trained.share:.0%} of the trained weights"
    duration = f"{result.steps:,} steps in {result.seconds / 60:.1f} minutes"
    if not result.promoted:
        reason = "it is worse than its base" if trained.seen < base.seen else "it is worse on unseen classes"
        return (
            f"not promoted: {figures} ({duration})\n"
            f"  {reason}, so nothing was written to {result.out}; --force writes it anyway"
        )
    if not trained.no_worse_than(base):
        figures = f"worse than its base, written because of --force: {figures}"
    out = shlex.quote(result.out)
    return (
        f"{result.out}: {figures} ({duration})\n"
        f"next:  lookalike evaluate folder:{out} --data ...   or   lookalike index ... --encoder folder:{out}"
    )
