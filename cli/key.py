"""`lookalike key`: a new API key for the service, and the entry by which the service knows it."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer


def key(
    name: Annotated[str, typer.Argument(help="Whose key it is, as logs call it: letters, digits, - and _.")],
    file: Annotated[Path, typer.Option(help="Key file to add it to; LOOKALIKE_KEYS_FILE tells the service.")] = Path(
        "keys.toml"
    ),
    role: Annotated[
        Literal["read", "admin"], typer.Option(help="`read` searches; `admin` reloads collections as well.")
    ] = "read",
) -> None:
    """Make an API key and print it, this once: the file keeps its SHA-256 only.

    Example:  lookalike key website   then   LOOKALIKE_KEYS_FILE=keys.toml lookalike serve images --host 0.0.0.0
    """
    from app.auth.keys import load_keyring, new_key

    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise typer.BadParameter(f"{name!r} is not 1 to 64 letters, digits, - and _", param_hint="NAME")
    made, digest = new_key()
    try:
        with _alone(file.parent):
            if file.exists() and name in load_keyring("", file).names:
                raise typer.BadParameter(
                    f"{file} has a key named {name!r}; take its table out first", param_hint="NAME"
                )
            _add(file.resolve(), f'[{name}]\nrole = "{role}"\nsha256 = "{digest}"\n')
    except OSError as error:
        typer.echo(f"error: {file} can't be written: {error.strerror}; it is as it was, no key was made", err=True)
        raise typer.Exit(1) from None
    typer.echo(made)
    typer.echo(f"{name} ({role}) stands in {file} now; the key above is not shown again.", err=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While another `lookalike key` writes there, waits."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _add(file: Path, table: str) -> None:
    """Writes the whole file anew beside it, so that a full disk leaves the old one; who may read it stays the same."""
    known = file.read_text(encoding="utf-8").rstrip("\n") if file.exists() else ""
    beside = file.with_name(f".{file.name}.new")  # nobody else's: see `_alone`
    try:
        beside.touch(0o600)
        if file.exists():
            now = file.stat()
            os.chown(beside, now.st_uid, now.st_gid)
            beside.chmod(stat.S_IMODE(now.st_mode))
        beside.write_text(f"{known}\n\n{table}" if known else table, encoding="utf-8")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
