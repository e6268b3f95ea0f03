"""The training loop on a toy network: reproducible losses, resumption, batches and schedules."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lookalike.encoders.architecture import Architecture, Towers
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import ConfigInvalid
from lookalike.types import Int64, UInt8
from tests.conftest import REPOSITORY
from training.data.augment import make_augmentation
from training.data.batches import Batches
from training.data.sampling import epoch_batches
from training.data.views import Views
from training.distributed import Process
from training.loop.training_loop import StepResult, TrainingLoop
from training.network.new_head import fit_principal_axes
from training.network.trainable import Trainable, require_compatible
from training.objectives import make_objective
from training.run.checkpoint import load_checkpoint, save_checkpoint
from training.settings import Augment, Settings, settings_from

SIDE, COUNT, CLASSES = 8, 48, 4
AUGMENT = Augment(crop=1.0, flip=0.5, pad=1)
CPU = torch.device("cpu")


class Toy(nn.Module):
    """A small network with batch normalization and dropout: (n, 3, 8, 8) uint8 -> (n, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 16), nn.BatchNorm1d(16))
        self.second = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 6))

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(pixels.float() / 255))
        return features


def toy_model(seed: int = 0) -> Trainable:
    torch.manual_seed(seed)
    preprocessing = Preprocessing(SIDE, SIDE, "squash", "bilinear", (0.0,) * 3, (1.0,) * 3)
    return Trainable(Towers(Toy(), None), Architecture("lite"), preprocessing, 6)


def toy_images() -> tuple[UInt8, Int64]:
    """Images whose class is the brightest quarter, in noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % CLASSES
    pixels = rng.integers(0, 160, (COUNT, 3, SIDE, SIDE), dtype=np.uint8)
    for row, label in enumerate(labels):
        top, left = divmod(int(label), 2)
        pixels[row, :, top * 4 : top * 4 + 4, left * 4 : left * 4 + 4] += 90
    return pixels, labels.astype(np.int64)


def settings(**tables: dict[str, object]) -> Settings:
    optimizer = {"epochs": 6, "batch_size": 16, "learning_rate": 5e-3, "precision": "fp32"}
    base = {"freeze_norm": False}  # the toy network has initial statistics only
    own = {
        "base": {**base, **tables.get("base", {})},
        "optimizer": {**optimizer, **tables.get("optimizer", {})},
        "sampling": {"per_class": 4},
    }
    return settings_from({**tables, **own}, "test")


def toy_loop(config: Settings, objective: str = "triplet", workers: int = 0) -> TrainingLoop:
    pixels, labels = toy_images()
    views = Views(pixels, make_augmentation(AUGMENT, SIDE), 2 if objective == "simclr" else 1)
    by_image = objective == "simclr"
    batches = Batches(
        views,
        None if by_image else labels,
        None,
        batch_size=config.optimizer.batch_size,
        per_class=0 if by_image else config.sampling.per_class,
        seed=config.seed,
        workers=workers,
        by_image=by_image,
    )
    model = toy_model()
    torch.manual_seed(1)
    return TrainingLoop(model, make_objective(objective), batches, config, CPU, Process())


def losses(steps: list[StepResult]) -> list[float]:
    return [step.loss for step in steps]


@pytest.mark.parametrize("objective", ["triplet", "contrastive", "cosine_pair", "info_nce", "simclr"])
def test_every_objective_learns_in_the_loop(objective: str) -> None:
    loop = toy_loop(settings(optimizer={"epochs": 20}), objective)
    seen = losses(list(loop.run(loop.total)))
    assert np.mean(seen[-5:]) < 0.8 * np.mean(seen[:5])


def test_losses_depend_on_seed_not_on_workers() -> None:
    alone = losses(list(toy_loop(settings()).run(6)))
    # In a separate process: forking is unsafe where libraries have started threads.
    script = (
        "import tests.slow.test_training_loop as t\nprint(t.losses(list(t.toy_loop(t.settings(), workers=2).run(6))))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(alone), done.stderr
    assert losses(list(toy_loop(settings(seed=1)).run(6))) != alone  # type: ignore[arg-type]


@pytest.mark.parametrize("extra", [{}, {"ema": 0.9}, {"memory": 24}], ids=["plain", "ema", "memory"])
def test_stopped_run_resumes_to_same_losses_and_weights(extra: dict[str, object], tmp_path: Path) -> None:
    whole = toy_loop(settings(optimizer=extra))
    expected = losses(list(whole.run(12)))
    first = toy_loop(settings(optimizer=extra))
    before = losses(list(first.run(5)))  # in the middle of an epoch
    save_checkpoint(tmp_path, {"settings": "{}", "loop": first.state()})
    second = toy_loop(settings(optimizer=extra))
    torch.manual_seed(99)
    state = load_checkpoint(tmp_path, {})
    assert state is not None
    second.restore(state["loop"])
    assert before + losses(list(second.run(12))) == expected
    for name, tensor in whole.weights().items():
        torch.testing.assert_close(second.weights()[name], tensor, rtol=0, atol=0)


def test_checkpoint_of_another_configuration_is_rejected(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, {}) is None
    save_checkpoint(tmp_path, {"settings": '{"a": 1}', "loop": {}})
    with pytest.raises(ConfigInvalid, match="another configuration"):
        load_checkpoint(tmp_path, {"a": 2})
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(ConfigInvalid, match="can't be read"):
        load_checkpoint(tmp_path, {"a": 1})


def test_chunks_give_the_gradient_of_the_whole_batch() -> None:
    def weights(chunk: int) -> Tensor:
        config = settings(optimizer={"chunk": chunk, "epochs": 1})
        loop = toy_loop(config, "contrastive")
        for module in loop.model.modules().modules():
            module.eval()
            if isinstance(module, nn.BatchNorm1d | nn.Dropout):
                module.train = lambda mode=True: None  # type: ignore[assignment, method-assign, misc, return-value]
        list(loop.run(2))
        return torch.cat([p.flatten() for p in loop.model.towers.image.parameters()])

    torch.testing.assert_close(weights(5), weights(0), rtol=0, atol=1e-5)


def test_frozen_stages_do_not_change() -> None:
    config = settings(base={"freeze": 0.5}, optimizer={"layer_decay": 0.5})
    loop = toy_loop(config)
    start = copy.deepcopy(loop.model.towers.image.state_dict())
    list(loop.run(3))
    now = loop.model.towers.image.state_dict()
    for name, tensor in start.items():
        assert torch.equal(now[name], tensor) == name.startswith("first."), name


def test_wise_interpolates_between_start_and_trained_weights() -> None:
    half = toy_loop(settings(optimizer={"wise": 0.5}))
    start = {name: tensor.clone() for name, tensor in half.model.modules().state_dict().items()}
    list(half.run(3))
    now = half.model.modules().state_dict()
    for name, tensor in half.weights().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (start[name] + now[name]) / 2)


def test_epoch_has_every_image_once_or_balanced_classes() -> None:
    rows = epoch_batches(None, 20, 5, 0, seed=3, epoch=0)
    assert sorted(rows.ravel().tolist()) == list(range(20))
    assert (epoch_batches(None, 20, 5, 0, seed=3, epoch=0) == rows).all()
    assert (epoch_batches(None, 20, 5, 0, seed=3, epoch=1) != rows).any()
    labels = np.repeat(np.arange(4), 6).astype(np.int64)
    for batch in epoch_batches(labels, 24, 6, 3, seed=0, epoch=0):
        assert sorted(np.bincount(labels[batch], minlength=4).tolist()) == [0, 0, 3, 3]


@pytest.mark.parametrize(("size", "per_class", "match"), [(30, 0, "more than the 24"), (7, 3, "whole groups")])
def test_impossible_batches_are_rejected(size: int, per_class: int, match: str) -> None:
    with pytest.raises(ConfigInvalid, match=match):
        epoch_batches(np.repeat(np.arange(4), 6).astype(np.int64), 24, size, per_class, seed=0, epoch=0)


def test_new_head_starts_with_principal_axes_of_features() -> None:
    features = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.arange(10.0, 0, -1))
    head = nn.Linear(10, 4)
    fit_principal_axes(head, features)
    projected = (features @ head.weight.T + head.bias).detach()
    torch.testing.assert_close(projected.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    kept = projected.var(0).sum() / features.var(0).sum()
    best = torch.linalg.svdvals(features - features.mean(0)).square()
    assert kept == pytest.approx(float(best[:4].sum() / best.sum()), abs=1e-3)
    small = nn.Linear(10, 8)
    fit_principal_axes(small, features[:3])
    assert torch.isfinite(small.weight).all()


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({"optimizr": {}}, "unknown key 'optimizr'"),
        ({"optimizer": {"epochs": "3"}}, r"optimizer\.epochs = '3'"),
        ({"optimizer": {"ema": 1.0}}, r"optimizer\.ema = 1\.0"),
        ({"base": {"freeze": 2}}, r"base\.freeze = 2"),
    ],
)
def test_invalid_configuration_names_the_key(document: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigInvalid, match=match):
        settings_from(document, "x.toml")


class AnySize(nn.Module):
    """Takes images of any side and records the sides: (n, 3, S, S) uint8 -> (n, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.sides = nn.Linear(3, 6), []

    def forward(self, pixels: Tensor) -> Tensor:
        self.sides.append(pixels.shape[-1])
        features: Tensor = self.layer(pixels.float().mean((2, 3)) / 255)
        return features


def test_input_grows_to_the_encoders_side() -> None:
    loop = toy_loop(settings(augment={"grow_from": 8}))
    tower = AnySize()
    loop.model.towers.image = tower
    loop.model.preprocessing = replace(loop.model.preprocessing, size=40)
    list(loop.run(loop.total))
    assert tower.sides == sorted(tower.sides)
    assert set(tower.sides) == {8, 24, 40}
    assert tower.sides.count(40) == 4  # the last quarter of 18 steps


def test_incompatible_input_sizes_are_rejected() -> None:
    model = toy_model()
    require_compatible(model, Augment())
    require_compatible(model, Augment(grow_from=SIDE, pad=SIDE - 1))
    with pytest.raises(ConfigInvalid, match=r"pad = 8.*8 pixels"):
        require_compatible(model, Augment(pad=SIDE))
    with pytest.raises(ConfigInvalid, match=r"grow_from = 9.*8 pixels"):
        require_compatible(model, Augment(grow_from=9))
    model.architecture = Architecture("open_clip")
    model.towers.model = SimpleNamespace(visual=SimpleNamespace(positional_embedding=1))
    with pytest.raises(ConfigInvalid, match="vision transformer"):
        require_compatible(model, Augment(grow_from=4))
