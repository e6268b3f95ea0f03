"""`lookalike train` and `lookalike evaluate` from the shell's side."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from cli.evaluate import evaluate
from cli.train import train
from retrieval.errors import ConfigInvalid, SourceNotFound, UnknownEncoder

runner = CliRunner()


def app(command):
    program = typer.Typer()
    program.command()(command)
    return program


@pytest.fixture
def tar(tmp_path):
    path = tmp_path / "val.tar"
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for number in range(3):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "PNG")
            for name, data in ((f"{number}.png", buffer.getvalue()), (f"{number}.txt", b"noise\nmore noise\n")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def test_json_is_one_line_with_both_directions(tar):
    result = runner.invoke(app(evaluate), ["lite", "--data", str(tar), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["photographs"], report["captions"]) == (3, 6)
    assert report["encoder"]["name"] == "lite"
    # every photograph has the same captions, so each caption ranks the three alike: hits are a matter of chance
    assert report["text_to_image"]["R@5"] == report["image_to_text"]["R@10"] == 1.0


def test_the_table_names_both_directions(tar):
    result = runner.invoke(app(evaluate), ["lite", "--data", str(tar)])
    assert "text -> image" in result.stdout
    assert "image -> text" in result.stdout


def test_unknown_encoder_and_absent_data_are_named(tar, tmp_path):
    assert isinstance(runner.invoke(app(evaluate), ["nonesuch", "--data", str(tar)]).exception, UnknownEncoder)
    absent = runner.invoke(app(evaluate), ["lite", "--data", str(tmp_path / "absent.tar")])
    assert isinstance(absent.exception, SourceNotFound)


def test_training_names_what_is_missing(tmp_path):
    config = tmp_path / "lite.toml"
    out = ["--data", str(tmp_path), "--out", str(tmp_path / "lite.safetensors")]
    assert isinstance(runner.invoke(app(train), [str(config), *out]).exception, ConfigInvalid)
    config.write_text("[lite]\nepoch = 3\n")
    assert "unknown key 'epoch'" in str(runner.invoke(app(train), [str(config), *out]).exception)
    config.write_text("[lite]\nepochs = 3\n")
    missing = runner.invoke(app(train), [str(config), *out])
    assert isinstance(missing.exception, SourceNotFound)
    assert "no train.tar" in str(missing.exception)
    assert not (tmp_path / "lite.safetensors").exists()
