"""Train, export, index, serve and query on real photographs.

The collection's vectors must equal the trainer's embeddings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings as ServiceSettings
from cli.gallery import write_gallery
from indexing.job import IndexSettings, run_index
from lookalike.calibration import read_calibration
from lookalike.collection import open_collection
from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.protocol import TextEncoder
from lookalike.encoders.registry import load_encoder
from lookalike.images import decode
from tests.api.conftest import wait_until_ready
from training.bases.registry import load_base
from training.run.trainer import run_training
from training.settings import Settings, load_settings, settings_from
from training.validation.live_encoder import LiveEncoder

METHODS: dict[str, dict[str, Any]] = {
    "simclr": {"base": {"head": 32, "size": 64, "freeze": 0.5}, "objective": {"name": "simclr"}},
    "clip": {"base": {"size": 64, "freeze": 0.9}, "objective": {"name": "clip"}},
    "triplet": {"base": {"size": 64, "freeze": 0.5}, "objective": {"name": "triplet"}, "sampling": {"per_class": 2}},
}


@pytest.fixture(scope="module", params=METHODS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Settings]:
    """The gallery, the encoder's folder, and its training configuration."""
    folder = tmp_path_factory.mktemp(request.param)
    write_gallery(folder / "gallery")
    if request.param == "triplet":
        sort_into_classes(folder / "gallery")
    settings = settings_from(
        {
            **METHODS[request.param],
            "data": {"train": [str(folder / "gallery")], "holdout": 0.3},
            "optimizer": {"epochs": 2, "batch_size": 4 if request.param == "triplet" else 8, "learning_rate": 1e-4},
        },
        "test",
    )
    result = run_training(settings, folder / "mine", command="test", workers=0, force=True)
    assert result.promoted
    assert result.steps == 4
    return folder / "gallery", folder / "mine", settings


def sort_into_classes(gallery: Path) -> None:
    """Class folders of four or five images each."""
    for path in gallery.glob("*.jpg"):
        path.unlink()
    for number, path in enumerate(images_of(gallery)):
        (gallery / f"class-{number % 4}").mkdir(exist_ok=True)
        path.rename(gallery / f"class-{number % 4}" / path.name)


def images_of(gallery: Path) -> list[Path]:
    return sorted(gallery.rglob("*.png"))


def trained_encoder(mine: Path, settings: Settings) -> LiveEncoder:
    """The trainer's modules with its best weights."""
    model = load_base(settings.base, text=settings.objective.name == "clip")
    model.modules().load_state_dict(safetensors.torch.load_file(mine.with_name("mine.work") / "best.safetensors"))
    return LiveEncoder(model, "trainer", torch.device("cpu"))


def test_exported_folder_describes_its_training(trained: tuple[Path, Path, Settings]) -> None:
    _, mine, settings = trained
    card, report = (mine / "README.md").read_text(), json.loads((mine / "report.json").read_text())
    assert settings.objective.name in card
    assert report["before"]["seen"] <= 1
    assert report["after"]["seen"] == max(value for step, value in report["by_step"].items() if step != "0")
    assert (mine / "weights.safetensors").stat().st_mode == (mine / "encoder.json").stat().st_mode
    trained_by = load_settings(mine / "config.toml").model_dump(exclude={"data": {"train"}})
    assert trained_by == json.loads(json.dumps(report["settings"])) | {"data": trained_by["data"]}
    assert trained_by["optimizer"]["epochs"] == 2
    lines = [json.loads(line) for line in (mine / "metrics.jsonl").read_text().splitlines()]
    assert sum("loss" in line for line in lines) == 4


def test_served_embeddings_equal_trained_ones(trained: tuple[Path, Path, Settings], tmp_path: Path) -> None:
    gallery, mine, settings = trained
    name, live = f"folder:{mine}", trained_encoder(mine, settings)
    images = [decode(path.read_bytes()).image for path in images_of(gallery)]
    batch = np.stack([live.preprocess(image) for image in images])
    expected = live.encode_images(batch)
    reference = load_encoder(name, EngineOptions(device="cpu", engine="torch", precision="fp32"))
    np.testing.assert_allclose(reference.encode_images(batch), expected, atol=1e-5)
    served = load_encoder(name, EngineOptions(device="cpu"))
    assert (served.encode_images(batch) * expected).sum(axis=1).mean() > 0.999  # bf16 where the CPU has it
    if settings.objective.name == "clip":
        assert isinstance(reference, TextEncoder)
        texts = ["a cat", "a cup of coffee"]
        np.testing.assert_allclose(reference.encode_texts(texts), live.encode_texts(texts), atol=1e-5)

    run_index(
        IndexSettings((str(gallery),), tmp_path / "found", encoder=name, engine_options=EngineOptions(engine="torch"))
    )
    collection = open_collection(tmp_path / "found")
    rows = [collection.metadata.row_of(str(path.relative_to(gallery))) for path in images_of(gallery)]
    np.testing.assert_allclose(np.float32(collection.vectors[rows]), expected, atol=1e-3)
    (cat,) = gallery.rglob("chelsea.png")
    with TestClient(create_app(ServiceSettings(collection=tmp_path / "found"))) as client:
        wait_until_ready(client)
        response = client.post("/v1/search/image", files={"file": cat.read_bytes()}).json()
        assert response["results"][0]["id"] == str(cat.relative_to(gallery))
        assert response["encoder"] == f"folder:{mine}"
        text = client.post("/v1/search/text", json={"text": "a cat"})
        assert text.status_code == (200 if settings.objective.name == "clip" else 422)
        sides = {"a": cat.read_bytes(), "b": next(gallery.rglob("coffee.png")).read_bytes()}
        pair = client.post("/v1/similarity", files=sides).json()
        first, second = (
            expected[images_of(gallery).index(next(gallery.rglob(f"{name}.png")))] for name in ("chelsea", "coffee")
        )
        assert pair["cosine"] == pytest.approx(float(first @ second), abs=0.01)
        assert pair["similar"] == (pair["distance"] <= pair["threshold"])
        measured = (
            read_calibration(mine / "calibration.json").image_image if settings.objective.name != "clip" else None
        )
        if measured is not None:
            assert pair["threshold"] == pytest.approx(measured.threshold)
            assert pair["probability"] == pytest.approx(measured.probability(pair["cosine"]), abs=1e-3)


def test_modified_folder_is_rejected(trained: tuple[Path, Path, Settings], tmp_path: Path) -> None:
    from lookalike.errors import WeightsInvalid, WeightsMissing

    _, mine, _ = trained
    with pytest.raises(WeightsMissing, match="lookalike train"):
        load_encoder(f"folder:{tmp_path}")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "encoder.json").write_bytes((mine / "encoder.json").read_bytes())
    with pytest.raises(WeightsMissing, match=r"weights\.safetensors"):
        load_encoder(f"folder:{copy}")
    (copy / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsInvalid, match="copy the whole folder"):
        load_encoder(f"folder:{copy}")
    (copy / "encoder.json").write_text("[]")
    with pytest.raises(WeightsInvalid, match="not what"):
        load_encoder(f"folder:{copy}")
