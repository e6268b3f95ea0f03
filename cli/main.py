"""The `lookalike` program: its sub-commands, and errors printed as one line with exit status 1."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from cli.add import add
from cli.compact import compact
from cli.delete import delete
from cli.demo import demo
from cli.duplicates import duplicates
from cli.embed import embed
from cli.encoders import encoders
from cli.evaluate import evaluate
from cli.fields import fields
from cli.gallery import gallery
from cli.imports import import_embeddings
from cli.index import index
from cli.items import items
from cli.key import key
from cli.map import map_collection
from cli.mcp import mcp
from cli.pull import pull
from cli.push import push
from cli.search import search
from cli.serve import serve
from cli.snapshot import restore, snapshot
from cli.train import train
from lookalike.disk_errors import file_error
from lookalike.errors import LookalikeError

app = typer.Typer(
    name="lookalike",
    help="Search images by text or by image, and compare pairs: index a folder, then search it over HTTP or from here.",
    epilog="Start with:  lookalike index ~/Pictures --out images   then   lookalike serve images",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"lookalike {version('lookalike')}")
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log decisions and progress on stderr.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


for command in (
    demo,
    index,
    search,
    fields,
    items,
    serve,
    add,
    delete,
    key,
    duplicates,
    embed,
    encoders,
    evaluate,
    train,
    gallery,
    mcp,
    compact,
    snapshot,
    restore,
    pull,
    push,
):
    app.command()(command)
app.command("import")(import_embeddings)
app.command("map")(map_collection)


def main() -> None:
    """Run the program: the entry point of the `lookalike` script."""
    try:
        app()
    except LookalikeError as error:
        _exit(error)
    except OSError as error:  # a path that can't be read or written, in whichever command
        logging.getLogger(__name__).info("the operating system refused", exc_info=True)
        _exit(file_error(error))


def _exit(error: LookalikeError) -> NoReturn:
    typer.echo(f"error: {error} [{error.code}]", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
