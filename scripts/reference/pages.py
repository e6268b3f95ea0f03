"""The generated files by name, as `make reference` writes them and as a test compares them."""

from __future__ import annotations

import json

from app.main import create_app
from app.settings import Settings
from scripts.reference import cli, errors, http_api, settings

_NOTE = "<!-- Written by `make reference` from {source}: edit the text there. -->\n\n"


def files() -> dict[str, str]:
    """Return the text of each generated file by its path in the repository."""
    document = create_app(Settings()).openapi()
    pages = {
        "http-api": (http_api.page(document), "the routes and schemas in app/api"),
        "cli": (cli.page(), "the commands in cli"),
        "settings": (settings.page(), "app/settings.py"),
        "errors": (errors.page(), "lookalike/errors.py and app/errors.py"),
    }
    written = {
        f"docs/reference/{name}.md": _NOTE.format(source=source) + text for name, (text, source) in pages.items()
    }
    return {"docs/openapi.json": json.dumps(document, indent=2) + "\n", **written}
