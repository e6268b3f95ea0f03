"""`lookalike key`: a new API key of the service, whose SHA-256 digest is added to the key file."""

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

from lookalike.messages import quoted


def key(
    name: Annotated[str, typer.Argument(help="Name of the key in logs: 1 to 64 letters, digits, - and _.")],
    file: Annotated[
        Path, typer.Option(help="Key file to add the key to. Pass it to the service as LOOKALIKE_KEYS_FILE.")
    ] = Path("keys.toml"),
    role: Annotated[
        Literal["read", "write", "admin"],
        typer.Option(
            help="`read` allows searching; `write` also allows adding, changing and deleting items; `admin` also "
            "allows reloading collections."
        ),
    ] = "read",
) -> None:
    """Create an API key and print it once. The key file stores only its SHA-256 digest.

    Example:  lookalike key website

    Example:  LOOKALIKE_KEYS_FILE=keys.toml lookalike serve images --host 0.0.0.0
    """
    from app.auth.keys import load_keyring, new_key

    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise typer.BadParameter(
            f"{quoted(name)} is not a valid name; use 1 to 64 letters, digits, - and _", param_hint="NAME"
        )
    new, digest = new_key()
    try:
        with _locked(file.parent):
            if file.exists() and name in load_keyring("", file).names:
                raise typer.BadParameter(
                    f"{file} already has a key named {name!r}; remove its table first", param_hint="NAME"
                )
            _add(file.resolve(), f'[{name}]\nrole = "{role}"\nsha256 = "{digest}"\n')
    except OSError as error:
        typer.echo(
            f"error: {file} can't be written: {error.strerror}; it is unchanged and no key was created", err=True
        )
        raise typer.Exit(1) from None
    typer.echo(new)
    typer.echo(f"{name} ({role}) was added to {file}; the key above is not shown again.", err=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, so that only one `lookalike key` writes there at a time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _add(file: Path, table: str) -> None:
    """Write a new file and rename it over the old one, which survives a full disk; owner and mode stay the same."""
    tables = file.read_text(encoding="utf-8").rstrip("\n") if file.exists() else ""
    temporary = file.with_name(f".{file.name}.new")  # no other process writes it: see `_locked`
    try:
        temporary.touch(0o600)
        if file.exists():
            stats = file.stat()
            os.chown(temporary, stats.st_uid, stats.st_gid)
            temporary.chmod(stat.S_IMODE(stats.st_mode))
        temporary.write_text(f"{tables}\n\n{table}" if tables else table, encoding="utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
