"""The list of encoders, and the command that prints it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from lookalike.encoders.fake import FakeEncoder
from lookalike.encoders.lite.abilities import LANGUAGES, LIMITS
from lookalike.encoders.lite.constants import LITE_DIM
from lookalike.encoders.lite.encoder import lite_encoder
from lookalike.encoders.registry import encoder_kinds, known_encoders, load_encoder
from lookalike.errors import UnknownEncoder
from lookalike.messages import number_of


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_installed_tags_come_first_and_others_on_request(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "open_clip" / "ViT-L-14" / "laion2b_s32b_b82k.safetensors"
    place.parent.mkdir(parents=True)
    place.touch()
    assert [known.name for known in known_encoders()] == ["lite", "open_clip:ViT-L-14/laion2b_s32b_b82k"]
    every = list(known_encoders(every=True))
    assert [known.installed for known in every[:3]] == [True, True, False]
    by_name = {known.name: known for known in every}
    assert len(by_name) == len(every) > 100
    missing = by_name["open_clip:ViT-B-32/laion2b_s34b_b79k"]
    assert missing.dim == 512
    assert missing.hint == "fetch laion/CLIP-ViT-B-32-laion2B-s34B-b79K/open_clip_model.safetensors"


def test_command_lists_lite_as_text_and_json() -> None:
    plain = CliRunner().invoke(app, ["encoders"])
    assert plain.exit_code == 0
    assert "lite" in plain.stdout.splitlines()[1]
    as_json = CliRunner().invoke(app, ["encoders", "--json"])
    first = json.loads(as_json.stdout.splitlines()[0])
    assert (first["name"], first["at_hand"], first["dim"]) == ("lite", True, LITE_DIM)
    assert "mend" in first
    assert first["languages"] == list(LANGUAGES)
    assert plain.stdout.splitlines()[1].endswith(f"images and text in {number_of(len(LANGUAGES), 'language')}")
    assert f"\nlite: texts in {' '.join(LANGUAGES)}. {first['limits']}\n" in plain.stdout


def test_spec_of_lite_states_languages_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = lite_encoder().spec
    assert (spec.languages, spec.limits) == (LANGUAGES, LIMITS)
    assert "en" in LANGUAGES
    assert all(re.fullmatch("[a-z]{2}", code) for code in LANGUAGES)
    assert re.fullmatch(r"[^.]+\.", LIMITS)  # one sentence
    monkeypatch.setattr("lookalike.encoders.lite.encoder.text_available", lambda: False)
    assert lite_encoder().spec.languages == ()


def test_prepare_converts_and_reports_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["encoders", "--prepare", "lite"])
    assert done.exit_code == 0
    assert done.stdout.startswith(f"lite is ready: {LITE_DIM} dimensions, ")


def test_unknown_name_error_lists_every_form() -> None:
    with pytest.raises(UnknownEncoder) as raised:
        load_encoder("no-such-encoder")
    forms = [kind.form for kind in encoder_kinds() if kind.name != "fake"]
    assert str(raised.value).endswith(f"; the forms are {', '.join(forms)}")


def test_argument_is_required_where_the_form_has_one() -> None:
    for kind in encoder_kinds():
        assert bool(kind.argument) == (":" in kind.form)
        with pytest.raises(UnknownEncoder, match=kind.argument or "unknown encoder"):
            load_encoder(kind.name if kind.argument else f"{kind.name}:argument")


def test_fake_encoder_can_be_checked_by_hand() -> None:
    encoder = FakeEncoder()
    red = np.zeros((1, 3, 8, 8), np.uint8)
    red[:, 0] = 255
    expected = np.array([255] * 4 + [0] * 8 + [32]) / np.sqrt(4 * 255**2 + 32**2)
    np.testing.assert_allclose(encoder.encode_images(red)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(encoder.encode_texts(["a red thing"])[0], expected, rtol=1e-6)
    split = encoder.encode_texts(["red blue"])[0]
    assert split[[0, 2]].min() == split[[9, 11]].min() > 0  # red in the left cells, blue in the right ones
    assert not split[[1, 3, 8, 10]].any()
