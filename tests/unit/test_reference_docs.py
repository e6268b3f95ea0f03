"""The generated pages: committed as `make reference` writes them, and complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from app.errors import HTTP_CODES
from app.settings import Settings
from cli.main import app
from scripts.reference.cli import page as cli_page
from scripts.reference.markdown import error_classes, linked, table
from scripts.reference.pages import files
from scripts.reference.settings import sections

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """The files as the generator writes them, by name."""
    return files()


@pytest.fixture(scope="module")
def document(written: dict[str, str]) -> dict[str, Any]:
    """The OpenAPI document."""
    parsed: dict[str, Any] = json.loads(written["docs/openapi.json"])
    return parsed


def test_committed_files_are_those_that_are_generated(written: dict[str, str]) -> None:
    for name, text in written.items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"{name} differs: run `make reference`"


def test_page_has_every_operation_and_model(written: dict[str, str], document: dict[str, Any]) -> None:
    page = written["docs/reference/http-api.md"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"### {method.upper()} {path}\n" in page or f"`{method.upper()} {path}`" in page, (method, path)
            assert operation["summary"] in page
    for name, model in document["components"]["schemas"].items():
        for field, schema in model["properties"].items():
            assert schema.get("description"), f"{name}.{field} has no description"
            assert f"| `{field}` |" in page, f"{name}.{field}"


def test_operations_have_a_heading_once(written: dict[str, str], document: dict[str, Any]) -> None:
    page = written["docs/reference/http-api.md"]
    assert page.count("\n### POST /v1/search/text\n") == 1
    assert "### POST /v1/collections/{name}/search/text" not in page
    assert page.count("\n### POST /v1/collections/{name}/reload\n") == 1


def test_error_responses_name_existing_codes(document: dict[str, Any]) -> None:
    codes = {error.code for error in error_classes()} | HTTP_CODES.keys()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert set(response["description"].split("`")[1::2]) <= codes, (path, status)


def test_page_has_every_command_and_option(written: dict[str, str]) -> None:
    page = written["docs/reference/cli.md"]
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) > 8
    for name, command in commands.items():
        _, found, rest = page.partition(f"\n## lookalike {name}\n")
        assert found, name
        section = rest.partition("\n## ")[0]
        for parameter in command.params:
            assert parameter.help, (name, parameter.name)
            for option in parameter.opts:
                assert f"`{option}`" in section or f"`{option.upper()}`" in section or parameter.metavar in section


def test_every_setting_has_a_section_and_a_heading(written: dict[str, str]) -> None:
    page = written["docs/reference/settings.md"]
    assert sorted(name for names in sections().values() for name in names) == sorted(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert page.count(f"\n### LOOKALIKE_{name.upper()}\n") == 1, name
        assert field.description, name


def test_texts_link_codes_settings_and_pages() -> None:
    assert linked("`disk_full` by `nothing`") == "[`disk_full`](errors.md#disk_full) by `nothing`"
    assert linked("see LOOKALIKE_URLS, --out") == "see [`LOOKALIKE_URLS`](settings.md#lookalike_urls), `--out`"
    assert linked("docs/guides/operate.md, `lookalike x --y`") == "[Operate](../guides/operate.md), `lookalike x --y`"


def test_table_drops_empty_columns_and_escapes_bars() -> None:
    assert table(("a", "b", "c"), [("1", "", "x|y")]).splitlines() == ["| a | c |", "| --- | --- |", "| 1 | x\\|y |"]
    assert "| `--json` |" in cli_page()
