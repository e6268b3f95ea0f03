from __future__ import annotations

from pathlib import Path

import pytest

from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.protocol import TextEncoder
from lookalike.encoders.registry import load_encoder
from tests.contract.encoders import add_tiny_models, save_random


@pytest.fixture(scope="session")
def encoder_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this run's own, without graphs that an earlier run converted."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(encoder_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(encoder_cache))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights by open_clip model name."""
    folder = tmp_path_factory.mktemp("checkpoints")
    configs = tmp_path_factory.mktemp("configs")
    add_tiny_models(configs)
    return {
        "tiny": save_random("tiny", folder / "tiny.safetensors"),
        "tiny-eos": save_random("tiny-eos", folder / "tiny-eos.pt"),
        "tiny-bidirectional": save_random("tiny-bidirectional", folder / "tiny-bidirectional.safetensors"),
    }


@pytest.fixture(scope="session")
def loaded(checkpoints: dict[str, Path], encoder_cache: Path) -> dict[tuple[str, str, str], TextEncoder]:
    """Encoders already loaded, by (name, engine, precision)."""
    return {}


@pytest.fixture
def encoder(
    request: pytest.FixtureRequest,
    checkpoints: dict[str, Path],
    loaded: dict[tuple[str, str, str], TextEncoder],
) -> TextEncoder:
    """One of the registered encoders under one engine; the parameter is (name, engine, precision)."""
    name, engine, precision = request.param
    if name in checkpoints:
        name = f"open_clip:{name}/{checkpoints[name]}"
    if (name, engine, precision) not in loaded:
        made = load_encoder(name, EngineOptions(device="cpu", engine=engine, precision=precision))
        assert isinstance(made, TextEncoder)
        loaded[name, engine, precision] = made
    return loaded[name, engine, precision]
