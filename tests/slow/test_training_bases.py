"""Base encoders as trainable modules: stages, optimizer groups, export and loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.protocol import TextEncoder
from lookalike.encoders.registry import load_encoder
from lookalike.errors import ConfigInvalid, SourceError, WeightsInvalid
from tests.contract.encoders import add_tiny_models, save_random
from training.bases.registry import load_base
from training.loop.optimizer import make_optimizer, set_learning_rate
from training.network.stages import freeze, parameters_of, stages, text_parameters
from training.network.trainable import Trainable
from training.objectives import make_objective
from training.run.export import export_encoder, require_replaceable
from training.settings import Base, Optimizer
from training.validation.live_encoder import LiveEncoder

CPU = torch.device("cpu")
TEXTS = ["a cat", "two dogs that run over the grass", ""]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    add_tiny_models(tmp_path_factory.mktemp("configs"))
    folder = tmp_path_factory.mktemp("checkpoints")
    names = ("tiny", "tiny-eos")
    return {name: f"open_clip:{name}/{save_random(name, folder / f'{name}.safetensors')}" for name in names}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))


def pixels(side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, side, side), dtype=np.uint8))


def changed(model: Trainable) -> None:
    """Change all weights."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.modules().parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)


@pytest.mark.parametrize(
    ("encoder", "head", "text"),
    [
        ("lite", 0, True),
        ("lite", 0, False),
        ("lite", 16, False),
        ("tiny", 0, True),
        ("tiny", 8, False),
        ("tiny-eos", 0, True),
    ],
)
def test_exported_encoder_equals_the_trained_model(
    encoder: str, head: int, text: bool, tiny: dict[str, str], tmp_path: Path
) -> None:
    name = tiny.get(encoder, encoder)
    model = load_base(Base(encoder=name, head=head, size=64 if encoder == "lite" else 0), text=text)
    changed(model)
    live = LiveEncoder(model, "live", CPU)
    export_encoder(tmp_path / "mine", model, model.modules().state_dict(), base=name, extra={"README.md": "#\n"})
    again = load_encoder(f"folder:{tmp_path / 'mine'}", EngineOptions(device="cpu", engine="torch"))
    batch = pixels(model.preprocessing.size).numpy()
    np.testing.assert_allclose(again.encode_images(batch), live.encode_images(batch), atol=1e-5)
    assert again.spec.text == text
    if text:
        assert isinstance(again, TextEncoder)
        np.testing.assert_allclose(again.encode_texts(TEXTS), live.encode_texts(TEXTS), atol=1e-5)
    # and the folder is a base for more training
    further = load_base(Base(encoder=f"folder:{tmp_path / 'mine'}"), text=text)
    for key, tensor in model.modules().state_dict().items():
        if not key.startswith("text.parts.visual"):
            torch.testing.assert_close(further.modules().state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("encoder", ["lite", "tiny"])
def test_stages_contain_every_parameter_once(encoder: str, tiny: dict[str, str]) -> None:
    for head in (0, 8):
        tower = load_base(Base(encoder=tiny.get(encoder, encoder), head=head), text=False).towers.image
        listed = [id(parameter) for stage in stages(tower) for parameter in parameters_of(stage)]
        assert len(listed) == len(set(listed))
        assert set(listed) == {id(parameter) for parameter in tower.parameters()}


def test_optimizer_has_each_parameter_once_at_its_rate(tiny: dict[str, str]) -> None:
    base = Base(encoder=tiny["tiny"], freeze=0.5, freeze_text=False)
    model = load_base(base, text=True)
    freeze(model, base)
    settings = Optimizer(learning_rate=1e-4, layer_decay=0.5, weight_decay=0.1)
    objective = make_objective("clip")
    optimizer = make_optimizer(model, objective, base, settings)
    listed = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trained = [*model.towers.image.parameters(), *text_parameters(model), *objective.parameters()]
    assert sorted(listed) == sorted({id(parameter) for parameter in trained if parameter.requires_grad})
    parts = stages(model.towers.image)
    frozen = [parameter for stage in parts[: round(0.5 * len(parts))] for parameter in parameters_of(stage)]
    assert not any(parameter.requires_grad for parameter in frozen)
    for group in optimizer.param_groups:
        assert group["weight_decay"] in (0.0, 0.1)
        assert all((parameter.ndim > 1) == (group["weight_decay"] > 0) for parameter in group["params"])
    last = next(parameters_of(parts[-1]))
    rates = {id(parameter): group["peak"] for group in optimizer.param_groups for parameter in group["params"]}
    assert rates[id(last)] == 1e-4
    assert rates[id(next(parameters_of(parts[-2])))] == 0.5e-4
    assert rates[id(next(objective.parameters()))] == settings.head_learning_rate


def test_learning_rate_rises_and_falls_to_zero() -> None:
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0, "peak": 2.0}])
    factors = [set_learning_rate(optimizer, step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[-1] < 0.001
    assert optimizer.param_groups[0]["lr"] == 2.0 * factors[-1]


@pytest.mark.parametrize(
    ("base", "text", "match"),
    [
        (Base(encoder="resnet"), False, "known are lite"),
        (Base(head=8), True, "captions need 0"),
        (Base(projection=8), True, "captions need 0"),
    ],
)
def test_invalid_base_is_rejected(base: Base, text: bool, match: str) -> None:
    with pytest.raises(ConfigInvalid, match=match):
        load_base(base, text=text)


def test_vision_transformer_takes_one_size(tiny: dict[str, str]) -> None:
    with pytest.raises(ConfigInvalid, match="leave it at 0"):
        load_base(Base(encoder=tiny["tiny"], size=96), text=False)


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(SourceError, match="holds other files"):
        require_replaceable(tmp_path)
    with pytest.raises(SourceError, match="is a file"):
        require_replaceable(tmp_path / "thesis.tex")
    require_replaceable(tmp_path / "new")


def test_weights_of_another_architecture_are_rejected(tmp_path: Path) -> None:
    small, large = (load_base(Base(head=head, size=64), text=False) for head in (8, 16))
    export_encoder(tmp_path / "mine", small, large.modules().state_dict(), base="lite", extra={})
    with pytest.raises(WeightsInvalid, match="does not fit"):
        load_encoder(f"folder:{tmp_path / 'mine'}", EngineOptions(engine="torch")).encode_images(pixels(64).numpy())
