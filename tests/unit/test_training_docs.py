"""docs/reference/training-configuration.md and configs/: all keys, objectives and options are documented and valid."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from training.lite.config import LiteConfig
from training.objectives import make_objective, objective_names
from training.run.result import as_toml
from training.settings import Settings, load_settings, settings_from

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/training-configuration.md").read_text()
_TYPES = {str: "string", float: "number", int: "integer", bool: "boolean", list[str]: "list of strings"}


def documented_fields() -> list[tuple[str, FieldInfo]]:
    """Return the dotted names of all keys with their fields."""
    found: list[tuple[str, FieldInfo]] = []
    for table, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        found += [(f"{table}.{key}", each) for key, each in inner.items()] if inner else [(table, field)]
    return found


def table_row(name: str, field: FieldInfo) -> str:
    """Return the page's row of a key, in the section of its table: name, type, default, range, meaning."""
    kind = "string" if get_origin(field.annotation) is Literal else _TYPES[field.annotation]  # type: ignore[index]
    cells = (
        f"`{name.rpartition('.')[2]}`",
        kind,
        f"`{json.dumps(field.default)}`",
        value_range(field),
        field.description,
    )
    return f"| {' | '.join(map(str, cells))} |"


def value_range(field: FieldInfo) -> str:
    """Return the range of a key's values, empty where there is none."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    low = high = ""
    for each in field.metadata:
        low = f"≥ {each.ge:,}" if isinstance(each, Ge) else f"> {each.gt:,}" if isinstance(each, Gt) else low
        high = f"≤ {each.le:,}" if isinstance(each, Le) else f"< {each.lt:,}" if isinstance(each, Lt) else high
    return ", ".join(filter(None, (low, high))).replace(f"{2**32:,}", "2\u00b3\u00b2")


def objective_section(name: str) -> str:
    """Return the section that documents an objective."""
    (section,) = [text for text in re.split(r"^###? ", PAGE, flags=re.MULTILINE) if f'`name = "{name}"`' in text]
    return section


@pytest.mark.parametrize(("name", "field"), documented_fields(), ids=[name for name, _ in documented_fields()])
def test_key_is_documented_with_type_default_and_range(name: str, field: FieldInfo) -> None:
    heading = f": `[{name.partition('.')[0]}]`" if "." in name else "Top-level keys"
    (section,) = [text for text in PAGE.split("\n## ") if text.splitlines()[0].endswith(heading)]
    assert table_row(name, field) in section.splitlines()


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_has_a_configuration_and_docs(name: str) -> None:
    settings = load_settings(ROOT / f"configs/{name}.toml")
    assert settings.objective.name == name
    make_objective(name, **settings.objective.options)
    section = objective_section(name)
    assert f"`configs/{name}.toml`" in section
    for option, parameter in inspect.signature(type(make_objective(name))).parameters.items():
        row = f"| `{option}` | {_TYPES[type(parameter.default)]} | `{json.dumps(parameter.default)}` | "
        assert row in section, option


def test_exported_configuration_loads_unchanged() -> None:
    data = {"classes": ["caf\u00e9", "\U0001f600", 'a "b"\n'], "label_column": "\u540d"}
    settings = settings_from({"data": data, "objective": {"name": "triplet", "mining": "hard", "margin": 0.3}}, "test")
    assert settings_from(tomllib.loads(as_toml(settings)), "exported") == settings


def test_every_key_of_the_lite_recipe_is_documented() -> None:
    page = (ROOT / "docs/internals/lite.md").read_text()
    for field in fields(LiteConfig):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert f"| `{field.name}` | `{default}` | " in page, field.name
