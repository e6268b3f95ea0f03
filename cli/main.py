"""`lookalike`: gathers the sub-commands and turns every deliberate error into one line and exit status 1.

It knows the commands' names; what they do stands in the rooms that they call.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli.demo import demo
from cli.duplicates import duplicates
from cli.encoders import encoders
from cli.evaluate import evaluate
from cli.gallery import gallery
from cli.imports import import_embeddings
from cli.index import index
from cli.key import key
from cli.search import search
from cli.serve import serve
from cli.train import train
from lookalike.errors import LookalikeError

app = typer.Typer(
    name="lookalike",
    help="Find images by text, by image and by pair: index a gallery once, then search it over HTTP or from here.",
    epilog="Start with:  lookalike index ~/Pictures --out images   then   lookalike serve images",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lookalike {version('lookalike')}")
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is chosen and done, on stderr.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


for command in (demo, index, search, serve, key, duplicates, encoders, evaluate, train, gallery):
    app.command()(command)
app.command("import")(import_embeddings)


def main() -> None:
    """The script's entry point."""
    try:
        app()
    except LookalikeError as error:
        typer.echo(f"error: {error} [{error.code}]", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
