"""The training pages and configs/: every key, objective and option is documented, every configuration is valid."""

from __future__ import annotations

import inspect
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from training.lite.config import LiteConfig
from training.objectives import make_objective, objective_names
from training.run.result import as_toml
from training.settings import Settings, load_settings, settings_from

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/guides/fine-tune.md").read_text()


def test_every_key_is_documented_with_default_and_description() -> None:
    for table, field in Settings.model_fields.items():
        kind = field.annotation
        if table == "objective" or not hasattr(kind, "model_fields"):
            continue
        for key, inner in kind.model_fields.items():
            assert f"| `{table}.{key}` | `" in PAGE, key
            assert inner.description is not None
            assert inner.description in PAGE, key


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_has_a_configuration_and_docs(name: str) -> None:
    settings = load_settings(ROOT / f"configs/{name}.toml")
    assert settings.objective.name == name
    make_objective(name, **settings.objective.options)
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    for option in inspect.signature(type(make_objective(name))).parameters:
        assert f"`{option} = " in row, option


def test_exported_configuration_loads_unchanged() -> None:
    data = {"classes": ["caf\u00e9", "\U0001f600", 'a "b"\n'], "label_column": "\u540d"}
    settings = settings_from({"data": data, "objective": {"name": "triplet", "mining": "hard", "margin": 0.3}}, "test")
    assert settings_from(tomllib.loads(as_toml(settings)), "exported") == settings


def test_every_key_of_the_lite_recipe_is_documented() -> None:
    page = (ROOT / "docs/internals/lite.md").read_text()
    for field in fields(LiteConfig):
        assert f"| `{field.name}` | `{field.default}` | " in page, field.name
