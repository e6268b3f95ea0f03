"""The options that `lookalike add` and `lookalike delete` share: a collection in a folder, or a service's."""

from __future__ import annotations

import json
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from lookalike.errors import ConfigInvalid, ExtraMissing
from lookalike.messages import quoted

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="Write through the running service at this address, and leave out COLLECTION."
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        envvar="LOOKALIKE_KEY",
        show_envvar=False,
        help="API key with the role `write`, for --url. Better in the environment variable LOOKALIKE_KEY: other users "
        "of this machine can see arguments.",
    ),
]
CollectionOption = Annotated[
    str | None,
    typer.Option(
        "--collection", metavar="NAME", help="Name of the service's collection, for --url.", show_default="its first"
    ),
]


def require_service(url: str | None, collection: str | None) -> None:
    """Check what a service is written to by: its address, and the Python client.

    Raises:
        typer.BadParameter: a service's collection is given, and no address.
        ConfigInvalid: the address has another scheme.
        ExtraMissing: the client is not installed.
    """
    if url is None:
        if collection is not None:
            raise typer.BadParameter("--collection names a collection of a service; pass --url, too")
        return
    if not url.lower().startswith(("http://", "https://")):
        raise ConfigInvalid(f"--url is {quoted(url)}; it must begin with http:// or https://")
    if find_spec("lookalike_client") is None:
        raise ExtraMissing(
            "lookalike_client is not installed: pip install ./clients/python in Lookalike's source folder"
        )


def json_object(text: str | None, option: str) -> dict[str, Any]:
    """Return the JSON object of an option; raises typer.BadParameter."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{option} is not JSON: {error}; it is {quoted(text)}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{option} is {quoted(text)}; it must be an object, such as " + '{"brand": "acme"}')
    return value


def compact_hint(collection: Path) -> str:
    """Return the line that says when others see the writes to a folder."""
    return f"`lookalike search` and running services see this after:  lookalike compact {shlex.quote(str(collection))}"
