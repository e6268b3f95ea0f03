"""Options, output and errors of `lookalike train` and `lookalike evaluate`."""

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
from lookalike.calibration import read_calibration
from lookalike.errors import ConfigInvalid, SourceError, SourceNotFound, UnknownEncoder, WeightsMissing
from tests.unit.small_images import write_folders

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


def test_evaluate_json_has_both_directions(tar):
    result = runner.invoke(app(evaluate), ["lite", "--data", str(tar), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["images"], report["captions"]["captions"]) == (3, 6)
    assert report["encoder"]["name"] == "lite"
    assert report["command"].startswith("lookalike")
    assert report["seconds"] > 0
    # all images have the same captions, so ranks within the three are arbitrary
    assert report["captions.text_to_image.R@5"] == report["captions.image_to_text.R@10"] == 1.0


def test_missing_default_baseline_error_names_the_option(tar, tmp_path, monkeypatch):
    def load(name, **_):
        if name == "gone":
            raise WeightsMissing("no weights of 'gone' here")
        return name

    monkeypatch.setattr("lookalike.bootstrap.load_encoder", load)
    monkeypatch.setattr("cli.evaluate._baseline", lambda *_, **__: "gone")
    arguments = ["folder:mine", "--data", str(tar), "--out", str(tmp_path / "report")]
    with pytest.raises(
        WeightsMissing, match=r"no weights of 'gone' here.*folder:mine was trained from it; --baseline none"
    ):
        runner.invoke(app(evaluate), arguments, catch_exceptions=False)


def test_evaluate_table_has_both_directions(tar):
    result = runner.invoke(app(evaluate), ["lite", "--data", str(tar)])
    assert "captions, text to image" in result.stdout
    assert "captions, image to text" in result.stdout


def test_evaluate_writes_report_and_calibration(tmp_path):
    colours = {f"{colour}/{i}.png": colour for colour in ("red", "green", "blue") for i in range(4)}
    data = write_folders(tmp_path / "data", colours)
    out, curve = tmp_path / "report", tmp_path / "calibration.json"
    arguments = ["fake", "--data", str(data), "--baseline", "fake", "--out", str(out), "--calibrate", str(curve)]
    options = ["--unseen", "red,blue", "--only", "labels,pairs", "--limit", "9", "--seed", "3", "--resamples", "20"]
    result = runner.invoke(app(evaluate), [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert "labels, unseen classes" in result.stdout
    assert "baseline" in result.stdout
    figures = json.loads((out / "figures.json").read_text())
    assert figures["precision_at_1"] == figures["baseline.unseen.precision_at_1"] == figures["pairs.f1"] == 1.0
    assert (figures["images"], figures["seed"], "zero_shot" in figures) == (9, 3, False)
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    calibration = read_calibration(curve)
    assert calibration.image_image is not None
    assert calibration.image_text is None


def test_evaluate_accepts_a_gallery_and_a_list_of_pairs(tmp_path):
    data = write_folders(tmp_path / "data", {"red/a.png": "red", "blue/b.png": "blue"})
    gallery = write_folders(tmp_path / "gallery", {"red/c.png": "red", "blue/d.png": "blue"})
    arguments = ["fake", "--data", str(data), "--gallery", str(gallery), "--only", "labels", "--json"]
    figures = json.loads(runner.invoke(app(evaluate), arguments).stdout)
    assert (figures["precision_at_1"], figures["queries"], figures["gallery"]) == (1.0, 2, 2)
    table = tmp_path / "pairs.csv"
    rows = ["data/red/a.png,gallery/red/c.png,1", "data/red/a.png,gallery/blue/d.png,0"] * 4
    table.write_text("\n".join(["a,b,same", *rows]))
    figures = json.loads(runner.invoke(app(evaluate), ["fake", "--data", str(table), "--json"]).stdout)
    assert figures["pairs.f1"] == figures["pairs.accuracy"] == 1.0


def test_list_of_mixed_pairs_is_rejected(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("a,b,text,same\nx.png,y.png,,1\nx.png,,a dog,1\n")
    error = runner.invoke(app(evaluate), ["fake", "--data", str(table)]).exception
    assert isinstance(error, SourceError)
    assert "both columns, b and text" in str(error)


def test_invalid_option_value_is_rejected(tar):
    for options in (["--only", "beauty"], ["--prompt", "a photo"]):
        result = runner.invoke(app(evaluate), ["fake", "--data", str(tar), *options])
        assert result.exit_code == 2
        assert "Invalid value" in result.output


def test_unknown_encoder_and_missing_data_are_errors(tar, tmp_path):
    assert isinstance(runner.invoke(app(evaluate), ["nonesuch", "--data", str(tar)]).exception, UnknownEncoder)
    result = runner.invoke(app(evaluate), ["lite", "--data", str(tmp_path / "absent.tar")])
    assert isinstance(result.exception, SourceNotFound)


def test_train_lite_names_missing_configuration_and_data(tmp_path):
    config = tmp_path / "lite.toml"
    out = ["--data", str(tmp_path), "--out", str(tmp_path / "lite.safetensors")]
    assert isinstance(runner.invoke(app(train), [str(config), *out]).exception, ConfigInvalid)
    config.write_text("[lite]\nepoch = 3\n")
    assert "unknown key 'epoch'" in str(runner.invoke(app(train), [str(config), *out]).exception)
    config.write_text("[lite]\nsteps = 3\nimages_per_step = [8]\n")
    missing = runner.invoke(app(train), [str(config), *out])
    assert isinstance(missing.exception, SourceNotFound)
    assert "no train.tar" in str(missing.exception)
    assert not (tmp_path / "lite.safetensors").exists()


@pytest.mark.parametrize(
    ("table", "option"),
    [
        ("lite", ["--validation", "v"]),
        ("lite", ["--base", "lite"]),
        ("lite", ["--epochs", "2"]),
        ("lite", ["--force"]),
        ("lite", ["--device", "auto"]),
        ("lite", ["--workers", "0"]),
        ("base", ["--metrics", "m.jsonl"]),
        ("base", ["--cache", "c"]),
    ],
)
def test_inapplicable_option_is_rejected(tmp_path, table, option):
    config = tmp_path / "this.toml"
    config.write_text(f"[{table}]\n")
    arguments = [str(config), "--data", str(tmp_path), "--out", str(tmp_path / "out"), *option]
    result = runner.invoke(app(train), arguments)
    assert result.exit_code == 2
    assert f"{option[0]} does not apply to" in " ".join(result.output.replace("│", " ").split())


def test_train_lite_prints_json_and_handles_ctrl_c(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    config, out = tmp_path / "lite.toml", tmp_path / "lite.safetensors"
    config.write_text("[lite]\n")
    arguments = [str(config), "--data", str(tmp_path), "--out", str(out), "--json"]
    monkeypatch.setattr("training.lite.run.run_lite", lambda *_: "ab" * 32)
    summary = json.loads(runner.invoke(app(train), arguments).stdout)
    assert summary == {"out": str(out), "sha256": "ab" * 32, "metrics": f"{out}.metrics.jsonl"}
    monkeypatch.setattr("training.lite.run.run_lite", interrupted)
    result = runner.invoke(app(train), arguments)
    assert result.exit_code == 130
    assert "run the same command again to start over" in result.output


def test_unwritable_output_is_reported_before_evaluation(tmp_path):
    data = write_folders(tmp_path / "data", {"red/a.png": "red", "red/b.png": "red"})
    (tmp_path / "file").write_text("")
    for option, path in (("--out", tmp_path / "file/report"), ("--calibrate", tmp_path / "file/curve.json")):
        result = runner.invoke(app(evaluate), ["nonesuch", "--data", str(data), option, str(path)])
        assert isinstance(result.exception, SourceError)
        assert option in str(result.exception)


def test_train_explains_a_rejection_on_stderr_of_rank_0(tmp_path, monkeypatch):
    from training.run.result import TrainingResult
    from training.validation.promotion import CandidateScore

    worse = TrainingResult(
        "mine", False, "precision_at_1", CandidateScore(0.9, None, 0.0), CandidateScore(0.8), 1.0, 2, ()
    )
    monkeypatch.setattr("cli.train._train", lambda *_, **__: worse)
    config = tmp_path / "this.toml"
    config.write_text("")
    arguments = [str(config), "--out", str(tmp_path / "mine"), "--json"]
    result = runner.invoke(app(train), arguments)
    assert result.exit_code == 3
    assert json.loads(result.stdout)["promoted"] is False
    assert "it is worse than its base" in result.stderr
    monkeypatch.setenv("RANK", "1")
    assert runner.invoke(app(train), arguments).output == ""
