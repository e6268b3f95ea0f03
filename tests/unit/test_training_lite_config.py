"""The recipe's configuration: the released file loads, and errors name the key."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from lookalike.errors import ConfigInvalid
from training.lite.config import LiteConfig, from_table, load_config

RELEASED = Path(__file__).parents[2] / "configs" / "lite.toml"


def test_released_file_has_every_key_with_its_default():
    assert load_config(RELEASED) == LiteConfig()
    assert all(f"\n{key} = " in RELEASED.read_text() for key in asdict(LiteConfig()))


def test_integers_are_accepted_for_floats_only():
    assert from_table({"learning_rate": 1}).learning_rate == 1.0
    with pytest.raises(ConfigInvalid, match=r"steps = 1\.5 must be an integer"):
        from_table({"steps": 1.5})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lerning_rate": 1e-3}, "unknown key 'lerning_rate'"),
        ({"steps": "many"}, "steps = 'many' must be an integer"),
        ({"dropout": True}, "dropout = True must be a number"),
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0 must be above 0"),
        ({"weight_decay": -1}, "weight_decay = -1.0 must be at least 0"),
        ({"concept_weight": 1.0}, r"concept_weight = 1.0 must be in \[0, 1\)"),
        ({"images_per_step": [8, 0]}, r"images_per_step = \[8, 0\] must be a list of numbers of at least 1"),
        ({"images_per_step": [8, 0.5]}, "images_per_step = 0.5 must be an integer"),
        ({"minilm_dropout": 1.0}, r"minilm_dropout = 1.0 must be in \[0, 1\)"),
        ({"classes_per_step": 1001}, r"classes_per_step = 1001 must be in \[0, 1000\]"),
    ],
)
def test_invalid_tables_are_rejected(table, message):
    with pytest.raises(ConfigInvalid, match=message):
        from_table(table)


@pytest.mark.parametrize(
    ("content", "message"), [("steps = 1", "must hold one table"), ("[lite]\n[other]", "other"), ("[lite", "not TOML")]
)
def test_invalid_files_are_rejected(tmp_path, content, message):
    path = tmp_path / "a.toml"
    path.write_text(content)
    with pytest.raises(ConfigInvalid, match=message):
        load_config(path)


def test_missing_file_is_rejected(tmp_path):
    with pytest.raises(ConfigInvalid, match="no configuration at"):
        load_config(tmp_path / "absent.toml")
