"""`lookalike mcp`: a server of the Model Context Protocol, through which AI assistants search a running service."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Annotated

import typer

from lookalike.errors import ConfigInvalid, ExtraMissing
from lookalike.messages import quoted

_PACKAGES = ("mcp", "lookalike_client")


def mcp(
    url: Annotated[str, typer.Option(help="Address of the service.")] = "http://127.0.0.1:8000",
    key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable that holds an API key with the role `read`."),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            help="Name of the collection to search where the assistant names none.", show_default="the service's"
        ),
    ] = None,
) -> None:
    """Let an AI assistant search a running service, by the Model Context Protocol over stdin and stdout.

    The assistant starts this command itself: docs/guides/ai-assistant.md shows how. All tools only read.

    Example:  lookalike mcp --url http://127.0.0.1:8000

    Example:  lookalike mcp --url https://images.example.org --key-env LOOKALIKE_KEY
    """
    if not url.lower().startswith(("http://", "https://")):
        raise ConfigInvalid(f"--url is {quoted(url)}; it must begin with http:// or https://")
    key = None if key_env is None else os.environ.get(key_env)
    if key_env is not None and not key:
        raise ConfigInvalid(f"the environment variable {key_env} is not set; --key-env names the one that holds a key")
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise ExtraMissing(f"{missing[0]} is not installed: pip install 'lookalike[mcp]'")

    from cli.mcp_server import Tools, mcp_server  # imports the SDK: not for `--help`

    mcp_server(Tools(url, key, collection)).run("stdio")
