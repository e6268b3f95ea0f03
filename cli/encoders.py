"""`lookalike encoders`: the encoders that can be used, and whether their weights are installed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lookalike.encoders.registry import KnownEncoder

_JSON_KEYS = {"installed": "at_hand", "hint": "mend"}
"""Fields whose keys in JSON are older than their names."""


def encoders(
    every: Annotated[
        bool, typer.Option("--all", help="List all published open_clip models, not only the installed ones.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line, in place of the table.")
    ] = False,
    prepare: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Download and convert the weights of this encoder now, so that its first use is fast."
        ),
    ] = None,
) -> None:
    """List the encoders, and whether their weights are installed.

    `--prepare` loads one encoder instead of listing all.

    Example:  lookalike encoders --all --json
    """
    if prepare is not None:
        typer.echo(_prepare(prepare))
        return

    from lookalike.encoders.registry import known_encoders  # imports torch: not for `--help`

    known = list(known_encoders(every=every))
    if as_json:
        for encoder in known:
            typer.echo(json.dumps(_json(encoder)))
        return
    typer.echo(_table(known))
    for encoder in known:
        if encoder.limits:
            texts = f"texts in {' '.join(encoder.languages)}. " if encoder.languages else ""
            typer.echo(f"\n{encoder.name}: {texts}{encoder.limits}")
    typer.echo(
        "\nAlso: open_clip:<model>/<path of a .safetensors or .pt checkpoint>, optionally with @fp32, @bf16 or @fp16."
    )
    if not every:
        typer.echo("For published open_clip tags that are not installed: lookalike encoders --all")


def _json(encoder: KnownEncoder) -> dict[str, Any]:
    return {_JSON_KEYS.get(name, name): value for name, value in asdict(encoder).items()}


def _prepare(name: str) -> str:
    import numpy as np

    from lookalike.encoders.protocol import TextEncoder
    from lookalike.encoders.registry import load_encoder

    encoder = load_encoder(name)
    spec = encoder.spec
    encoder.encode_images(np.zeros((1, 3, spec.image_size, spec.image_size), np.uint8))
    if spec.text and isinstance(encoder, TextEncoder):
        encoder.encode_texts(["a photo"])
    return f"{spec.name} is ready: {spec.dim} dimensions, {spec.engine} {spec.precision} on {spec.device}"


def _table(known: list[KnownEncoder]) -> str:
    width = max(len(encoder.name) for encoder in known)
    lines = [f"{'NAME':<{width}}  {'DIM':>5}  {'WEIGHTS':<9}  DESCRIPTION"]
    for encoder in known:
        weights = "installed" if encoder.installed else "missing"
        hint = f" ({encoder.hint})" if encoder.hint else ""
        lines.append(f"{encoder.name:<{width}}  {encoder.dim or '?':>5}  {weights:<9}  {encoder.description}{hint}")
    return "\n".join(lines)
