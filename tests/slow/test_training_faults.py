"""Faults during training: a full disk, interruptions, changed files, two runs at once, invalid data."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.datasets import Example, read_examples
from lookalike.calibration import read_calibration
from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.encoders.registry import load_encoder
from lookalike.errors import ConfigInvalid, DiskFull, EncoderError, SourceError, WeightsInvalid
from lookalike.types import CLIP_TEMPERATURE
from tests.bad_images import bad_images, encoded, make_image
from tests.unit.small_images import write_folders
from training.bases.registry import load_base
from training.data import image_cache as image_cache_module
from training.data.image_cache import ROWS_FILE, cache_images, digest_of
from training.run import trainer as trainer_module
from training.run.checkpoint import CHECKPOINT_FILE, trim_metrics
from training.run.export import export_encoder
from training.run.trainer import run_training
from training.settings import Base, settings_from

SIZE = Preprocessing(8, 8, "squash", "bilinear", (0.0,) * 3, (1.0,) * 3)


def gallery(folder: Path, count: int = 12) -> list[Example]:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f"{i:02}.png").write_bytes(encoded(make_image(seed=i), "PNG"))
    return read_examples([str(folder)])


def silent(count: int) -> None:
    assert count > 0


def test_undecodable_images_are_left_out(tmp_path: Path) -> None:
    examples = gallery(tmp_path / "gallery", 3)
    for odd in bad_images():
        (tmp_path / "gallery" / f"bad-{odd.name}").write_bytes(odd.data)
    examples = read_examples([str(tmp_path / "gallery")])
    pixels, kept = cache_images(examples, SIZE, tmp_path / "work", silent)
    assert [examples[row].key for row in kept] == ["00.png", "01.png", "02.png"]
    assert pixels.shape == (3, 3, 8, 8)


def test_replaced_image_is_decoded_again(tmp_path: Path) -> None:
    before, _ = cache_images(gallery(tmp_path / "gallery"), SIZE, tmp_path / "work", silent)
    first = np.array(before)
    path = tmp_path / "gallery/03.png"
    path.write_bytes(encoded(make_image(seed=99), "PNG"))
    os.utime(path, ns=(1, 1))
    after, _ = cache_images(read_examples([str(tmp_path / "gallery")]), SIZE, tmp_path / "work", silent)
    assert [row for row in range(12) if (first[row] != after[row]).any()] == [3]


def test_interrupted_decoding_is_not_taken_for_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = gallery(tmp_path / "gallery")
    whole = np.array(cache_images(examples, SIZE, tmp_path / "work", silent)[0])

    def killed(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_images(examples[::-1], SIZE, tmp_path / "work", killed)
    assert not (tmp_path / "work" / ROWS_FILE).exists()
    np.testing.assert_array_equal(cache_images(examples, SIZE, tmp_path / "work", silent)[0], whole)


def test_digest_covers_everything_that_is_trained_on() -> None:
    one = Example("a", bytes, "cat", ("a cat",), 7)
    others = [
        replace(one, **change) for change in ({"key": "b"}, {"label": "dog"}, {"captions": ()}, {"fingerprint": 8})
    ]
    assert len({digest_of([each]) for each in [one, *others]}) == 5


def test_truncated_line_of_metrics_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n{"step": 3, "lo')
    trim_metrics(path, 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def settings(folder: Path) -> object:
    return settings_from(
        {
            "base": {"head": 8, "size": 32, "freeze": 0.9},
            "objective": {"name": "simclr"},
            "optimizer": {"epochs": 1, "batch_size": 4, "precision": "fp32"},
            "data": {"train": [str(folder)]},
        },
        "test",
    )


def train(folder: Path, out: Path) -> None:
    run_training(settings(folder), out, command="test", workers=0, force=True)  # type: ignore[arg-type]


def test_full_disk_while_decoding_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    gallery(tmp_path / "gallery")
    monkeypatch.setattr(image_cache_module.os, "posix_fallocate", full)
    with pytest.raises(DiskFull, match="free some space and run the same command again"):
        train(tmp_path / "gallery", tmp_path / "mine")
    monkeypatch.undo()
    train(tmp_path / "gallery", tmp_path / "mine")
    assert (tmp_path / "mine/encoder.json").is_file()


def test_run_resumes_after_full_disk_at_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    gallery(tmp_path / "gallery")
    monkeypatch.setattr(trainer_module, "save_checkpoint", full)
    with pytest.raises(DiskFull, match="what was done is kept"):
        train(tmp_path / "gallery", tmp_path / "mine")
    monkeypatch.undo()
    train(tmp_path / "gallery", tmp_path / "mine")


def test_two_runs_do_not_share_a_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery(tmp_path / "gallery")

    def second(*_: object, **__: object) -> None:
        with pytest.raises(SourceError, match=rf"process {os.getpid()} is training in"):
            train(tmp_path / "gallery", tmp_path / "mine")
        raise KeyboardInterrupt

    real = trainer_module.load_data
    monkeypatch.setattr(trainer_module, "load_data", second)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "gallery", tmp_path / "mine")
    monkeypatch.setattr(trainer_module, "load_data", real)
    train(tmp_path / "gallery", tmp_path / "mine")


@pytest.mark.parametrize(
    "change", [{"dim": 12}, {"size": 0}, {"size": 1_000_000}, {"std": [0, 0, 0]}, {"mean": [0.5]}, {"resize": -5}]
)
def test_invalid_numbers_in_encoder_json_are_rejected(tmp_path: Path, change: dict[str, object]) -> None:
    model = load_base(Base(head=8, size=32), text=False)
    export_encoder(tmp_path / "mine", model, model.modules().state_dict(), base="lite", extra={})
    path = tmp_path / "mine/encoder.json"
    record = json.loads(path.read_text())
    (record if "dim" in change else record["preprocessing"]).update(change)
    path.write_text(json.dumps(record))
    with pytest.raises(WeightsInvalid, match=r"encoder\.json"):
        load_encoder(f"folder:{tmp_path / 'mine'}", EngineOptions(engine="torch"))


@pytest.mark.parametrize("change", [{"model": "no-such"}, {"family": "other"}, {"head": -3}])
def test_invalid_architecture_is_rejected(tmp_path: Path, change: dict[str, object]) -> None:
    model = load_base(Base(head=8, size=32), text=False)
    export_encoder(tmp_path / "mine", model, model.modules().state_dict(), base="lite", extra={})
    path = tmp_path / "mine/encoder.json"
    record = json.loads(path.read_text())
    record["architecture"] |= {"family": "open_clip", **change}
    path.write_text(json.dumps(record))
    with pytest.raises(WeightsInvalid, match=r"encoder\.json"):
        load_encoder(f"folder:{tmp_path / 'mine'}", EngineOptions(engine="torch")).encode_images(
            np.zeros((1, 3, 32, 32), np.uint8)
        )


def test_temperature_is_exported(tmp_path: Path) -> None:
    model = load_base(Base(head=8, size=32), text=False)
    folder, torch_engine = tmp_path / "mine", EngineOptions(engine="torch")
    export_encoder(folder, model, model.modules().state_dict(), base="lite", extra={}, temperature=0.04)
    assert load_encoder(f"folder:{folder}", torch_engine).spec.temperature == 0.04
    record = json.loads((folder / "encoder.json").read_text())
    for wrong in (0, -1, "warm"):
        (folder / "encoder.json").write_text(json.dumps({**record, "temperature": wrong}))
        with pytest.raises(WeightsInvalid, match=r"encoder\.json"):
            load_encoder(f"folder:{folder}", torch_engine)
    earlier = {name: value for name, value in record.items() if name != "temperature"}
    (folder / "encoder.json").write_text(json.dumps({**earlier, "format": 2}))
    assert load_encoder(f"folder:{folder}", torch_engine).spec.temperature == CLIP_TEMPERATURE


def as_written_by_the_first_edition(folder: Path, *, head: int) -> str:
    """Export an encoder from `lite`, in the format that the first edition wrote; return its name."""
    model = load_base(Base(head=head, size=32), text=False)
    export_encoder(folder, model, model.modules().state_dict(), base="lite", extra={})
    path = folder / "encoder.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    return f"folder:{folder}"


def test_joint_space_of_the_first_edition_of_lite_is_rejected(tmp_path: Path) -> None:
    name = as_written_by_the_first_edition(tmp_path / "mine", head=0)
    with pytest.raises(WeightsInvalid, match=r"mine was trained from the first edition of 'lite'.* train it again"):
        load_encoder(name, EngineOptions(engine="torch"))
    with pytest.raises(WeightsInvalid, match="train it again"):
        load_base(Base(encoder=name), text=False)


def test_head_trained_on_the_first_edition_of_lite_is_kept(tmp_path: Path) -> None:
    name = as_written_by_the_first_edition(tmp_path / "old", head=8)
    model = load_base(Base(encoder=name), text=False)
    export_encoder(tmp_path / "new", model, model.modules().state_dict(), base="lite", extra={})
    old, new = (load_encoder(f"folder:{tmp_path / each}", EngineOptions(engine="torch")) for each in ("old", "new"))
    assert old.spec.identity == new.spec.identity
    batch = np.zeros((1, 3, 32, 32), np.uint8)
    np.testing.assert_allclose(old.encode_images(batch), new.encode_images(batch), atol=1e-6)


def test_checkpoint_of_another_base_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    gallery(tmp_path / "gallery")
    monkeypatch.setattr(trainer_module.TrainingLoop, "_advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "gallery", tmp_path / "mine")
    monkeypatch.undo()
    checkpoint = tmp_path / "mine.work" / CHECKPOINT_FILE
    state = torch.load(checkpoint, weights_only=True)
    state["loop"]["modules"] = {f"old.{name}": tensor for name, tensor in state["loop"]["modules"].items()}
    torch.save(state, checkpoint)
    with pytest.raises(ConfigInvalid, match=r"a run of another base.* use another --out"):
        train(tmp_path / "gallery", tmp_path / "mine")


def test_missing_captions_are_rejected(tmp_path: Path) -> None:
    write_folders(tmp_path / "data", {f"red/{i}.png": "red" for i in range(8)})
    config = settings_from({"objective": {"name": "clip"}, "data": {"train": [str(tmp_path / "data")]}}, "test")
    with pytest.raises(SourceError, match="has a caption"):
        run_training(config, tmp_path / "mine", command="test", workers=0)
    assert not (tmp_path / "mine.work").exists()  # nothing came to be


def test_single_class_and_missing_classes_are_rejected(tmp_path: Path) -> None:
    one = write_folders(tmp_path / "one", {f"red/{i}.png": "red" for i in range(8)})
    config = settings_from({"objective": {"name": "triplet"}, "data": {"train": [str(one)]}}, "test")
    with pytest.raises(SourceError, match="one class, 'red'"):
        run_training(config, tmp_path / "mine", command="test", workers=0)
    both = write_folders(tmp_path / "both", {f"{name}/{i}.png": name for i in range(8) for name in ("red", "blue")})
    bare = write_folders(tmp_path / "bare", {"a.png": "red", "b.png": "blue"})
    data = {"train": [str(both)], "validation": [str(bare)]}
    config = settings_from({"objective": {"name": "triplet"}, "data": data}, "test")
    with pytest.raises(SourceError, match="the 2 validation images have none"):
        run_training(config, tmp_path / "mine", command="test", workers=0)


@pytest.mark.parametrize("out", ["file/mine", "/proc/mine"])
def test_unwritable_output_is_named(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="can't be made"):
        train(tmp_path, tmp_path / out)


def test_missing_device_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.encoders.engines.selection.cuda_available", lambda: False)
    for device, message in (("potato", "unknown device 'potato'"), ("cuda", "no CUDA device")):
        with pytest.raises(EncoderError, match=message):
            run_training(settings(tmp_path), tmp_path / "mine", command="test", device=device)  # type: ignore[arg-type]


def test_infinite_loss_ends_the_run_with_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery(tmp_path / "gallery")
    real = trainer_module.TrainingLoop._advance

    def diverging(loop: object, batch: object) -> object:
        step = real(loop, batch)  # type: ignore[arg-type]
        return replace(step, loss=float("nan")) if step.step == broken else step

    monkeypatch.setattr(trainer_module.TrainingLoop, "_advance", diverging)
    broken = 1
    with pytest.raises(ConfigInvalid, match=r"not finite any more at step 1.*optimizer\.learning_rate"):
        train(tmp_path / "gallery", tmp_path / "early")
    broken = 2
    config = settings(tmp_path / "gallery").model_copy(update={"evaluate_every": 0.1})  # type: ignore[attr-defined]
    result = run_training(config, tmp_path / "late", command="test", workers=0, force=True)
    assert any("not finite" in text for text in result.warnings)
    assert (tmp_path / "late/encoder.json").is_file()


def test_damaged_best_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery(tmp_path / "gallery")
    real = trainer_module._TrainingRun._load_best

    def damaged(run: trainer_module._TrainingRun) -> object:
        (run.work / trainer_module.BEST_FILE).write_bytes(b"not a tensor in sight")
        return real(run)

    monkeypatch.setattr(trainer_module._TrainingRun, "_load_best", damaged)
    with pytest.raises(SourceError, match=r"best\.safetensors can't be read.*remove"):
        train(tmp_path / "gallery", tmp_path / "mine")


def test_images_without_classes_calibrate_by_views(tmp_path: Path) -> None:
    gallery(tmp_path / "gallery")
    config = settings(tmp_path / "gallery")
    config = config.model_copy(update={"data": config.data.model_copy(update={"holdout": 0.5})})  # type: ignore[attr-defined]
    run_training(config, tmp_path / "mine", command="test", workers=0, force=True)
    calibration = read_calibration(tmp_path / "mine/calibration.json")
    assert calibration.image_image is not None
    lines = map(json.loads, (tmp_path / "mine/metrics.jsonl").read_text().splitlines())
    assert next(line["step"] for line in lines if "validation.loss" in line) == 0
