from __future__ import annotations

from pathlib import Path

import pytest

from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.protocol import TextEncoder
from lookalike.encoders.registry import load_encoder
from tests.contract.encoders import add_tiny_models, export_from, save_random


@pytest.fixture(scope="session")
def encoder_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this run's own, without graphs that an earlier run converted."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(encoder_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(encoder_cache))


@pytest.fixture(scope="session")
def example_names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Full names of the encoders in EXAMPLES, made with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    add_tiny_models(tmp_path_factory.mktemp("configs"))
    files = {"tiny": "tiny.safetensors", "tiny-eos": "tiny-eos.pt", "tiny-bidirectional": "bidirectional.safetensors"}
    names = {model: f"open_clip:{model}/{save_random(model, folder / file)}" for model, file in files.items()}
    return {**names, "exported": f"folder:{export_from(names['tiny'], folder / 'exported')}"}


@pytest.fixture(scope="session")
def loaded(example_names: dict[str, str], encoder_cache: Path) -> dict[tuple[str, str, str], TextEncoder]:
    """Encoders already loaded, by (name, engine, precision)."""
    return {}


@pytest.fixture
def encoder(
    request: pytest.FixtureRequest,
    example_names: dict[str, str],
    loaded: dict[tuple[str, str, str], TextEncoder],
) -> TextEncoder:
    """One of the registered encoders under one engine; the parameter is (name, engine, precision)."""
    name, engine, precision = request.param
    if (name, engine, precision) not in loaded:
        options = EngineOptions(device="cpu", engine=engine, precision=precision)
        made = load_encoder(example_names.get(name, name), options)
        assert isinstance(made, TextEncoder)
        loaded[name, engine, precision] = made
    return loaded[name, engine, precision]
