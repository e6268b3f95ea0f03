"""The base encoder's figures, measured on the same images before the first step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from lookalike.errors import WeightsMissing
from tests.unit.small_images import write_folders
from training.run import trainer as trainer_module
from training.run.result import TrainingResult
from training.run.trainer import run_training
from training.settings import settings_from

CLASSES = ("black", "blue", "green", "red", "white", "yellow")
SIX_OF_EACH = dict.fromkeys(CLASSES, 6)


def train(folder: Path, sizes: Mapping[str, int] = SIX_OF_EACH, **base: float) -> TrainingResult:
    data = write_folders(
        folder / "data", {f"{name}/{i}.png": name for name, size in sizes.items() for i in range(size)}
    )
    settings = settings_from(
        {
            "base": {"freeze": 0.9, **base},
            "data": {"train": [str(data)], "holdout": 0.4, "unseen": 0.3},
            "objective": {"name": "triplet"},
            "optimizer": {"epochs": 1, "batch_size": 8, "precision": "fp32"},
            "sampling": {"per_class": 2},
        },
        "test",
    )
    return run_training(settings, folder / "mine", command="test", workers=0, force=True)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "mine.work/metrics.jsonl").read_text().splitlines()]


def test_base_of_same_shape_is_measured_as_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        pytest.fail("the base was measured by its engine, the trained weights by the trainer")

    monkeypatch.setattr(trainer_module, "load_encoder", unexpected)
    result = train(tmp_path)
    before = next(line for line in lines(tmp_path) if "base.precision_at_1" in line)
    assert before["step"] == 0
    assert before["base.precision_at_1"] == result.base.seen
    assert before["base.unseen.precision_at_1"] == result.base.unseen
    start = next(line for line in lines(tmp_path) if "validation.precision_at_1" in line)
    assert start["validation.precision_at_1"] == result.base.seen


def test_undecodable_images_are_counted_in_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        path = tmp_path / f"data/red/broken-{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    result = train(tmp_path, head=8, size=32)
    (warning,) = [text for text in result.warnings if "can't be read and are left out" in text]
    report = json.loads((tmp_path / "mine/report.json").read_text())
    assert 1 <= report["rejected"] <= 3
    assert warning.startswith(f"{report['rejected']} of ")
    assert warning in capsys.readouterr().err


def test_too_few_images_of_the_last_classes_by_name_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The last two are to be held out; a single image of one of them has no other of its class to find.
    result = train(tmp_path, {**SIX_OF_EACH, "yellow": 1}, head=8, size=32)
    (warning,) = [text for text in result.warnings if text.startswith("data.unseen = 0.3 needs")]
    assert "at least four classes, and two images in at least two of the classes to hold out" in warning
    assert "which are the last by name: no class is held out whole" in warning
    assert warning in capsys.readouterr().err
    assert result.base.unseen is None


def test_base_is_measured_before_first_step_with_new_head(tmp_path: Path) -> None:
    result = train(tmp_path, head=8, size=32)
    kinds = [next(iter(line.keys() & {"loss", "base.precision_at_1"}), "") for line in lines(tmp_path)]
    assert kinds.index("base.precision_at_1") < kinds.index("loss")
    assert result.base.unseen is not None


def test_missing_base_fails_before_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise WeightsMissing("no weights here")

    monkeypatch.setattr(trainer_module, "load_encoder", missing)
    with pytest.raises(WeightsMissing):
        train(tmp_path, head=8, size=32)
    assert not any("loss" in line for line in lines(tmp_path))
