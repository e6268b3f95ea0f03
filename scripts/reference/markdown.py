"""Markdown for the generated pages: paragraphs, tables, code blocks, and links between the pages."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from app.errors import HTTP_CODES
from app.settings import PREFIX, Settings
from lookalike.errors import LookalikeError

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 120

_PAGE = re.compile(r"docs/(reference|guides)/([\w-]+)\.md")
_CODE_SPAN = re.compile(r"(`[^`]+`)")
_CODE = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|LOOKALIKE_[A-Z_]*[A-Z])(?!\w)")


def paragraphs(text: str) -> str:
    """Return the paragraphs of a docstring, wrapped, with links; those that are lists stay as they are."""
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(part if part.startswith("- ") else wrap(linked(part)) for part in parts)


def wrap(text: str) -> str:
    """Return a paragraph in lines of at most `WIDTH` characters."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table without the columns that are empty in each row."""
    used = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(line[column]) for column in used) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def block(language: str, code: str) -> str:
    """Return a fenced block of code."""
    return f"```{language}\n{code}\n```"


def json_block(value: Any) -> str:
    """Return a block of JSON; objects and arrays that fit on a line are not broken."""
    return block("json", _json(value, ""))


def _json(value: Any, indent: str) -> str:
    line = json.dumps(value)
    if len(indent + line) < 100 or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _json(each, inner) for each in value) + f"\n{indent}]"
    entries = (f"{inner}{json.dumps(name)}: {_json(each, inner)}" for name, each in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def linked(text: str, anchors: Mapping[str, str] | None = None) -> str:
    """Link the pages, error codes and settings that a text names; `anchors` has more names with their targets."""
    parts = _CODE_SPAN.split(text)
    parts = [part for plain in parts for part in ([plain] if plain[:1] == "`" else _CODE_SPAN.split(_with_code(plain)))]
    targets = {**_targets(), **(anchors or {})}
    return "".join(_link(part, targets) if part[:1] == "`" else part for part in parts)


def _with_code(text: str) -> str:
    return _CODE.sub(r"`\1`", _PAGE.sub(r"`\g<0>`", text))


def _link(span: str, targets: Mapping[str, str]) -> str:
    if page := _PAGE.fullmatch(span.strip("`")):
        folder = "" if page[1] == "reference" else f"../{page[1]}/"
        return f"[{_titles()[f'{page[1]}/{page[2]}.md']}]({folder}{page[2]}.md)"
    target = targets.get(span.strip("`"))
    return f"[{span}]({target})" if target else span


@cache
def _titles() -> dict[str, str]:
    """Return the titles of the site's pages."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    sections = [pages for section in nav for pages in section.values() if isinstance(pages, list)]
    return {path: title for pages in sections for page in pages for title, path in page.items()}


@cache
def _targets() -> dict[str, str]:
    """Return the headings of error codes and settings."""
    codes = {error.code for error in error_classes()} | HTTP_CODES.keys()
    variables = [PREFIX + name.upper() for name in Settings.model_fields]
    return {code: f"errors.md#{code}" for code in codes} | {name: f"settings.md#{name.lower()}" for name in variables}


def error_classes(root: type[LookalikeError] = LookalikeError) -> list[type[LookalikeError]]:
    """Return the error classes of the library and of the service, in the order of their definition."""
    children = [child for child in root.__subclasses__() if child.__module__ in ("lookalike.errors", "app.errors")]
    return [error for child in children for error in (child, *error_classes(child))]
