"""The example of PatchNCE: heads learned on some photographs find places in others, and it draws them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "patch_nce.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("patch_nce_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_learned_heads_beat_frozen_features(example, tmp_path):
    torch.manual_seed(0)
    images = example.photographs()[:10]
    translated = example.negatives(images)
    given, made = example.features(images), example.features(translated)
    assert [layer.shape[1] for layer in given] == [24, 40, 80]
    heads, losses = example.learn([layer[4:] for layer in made], [layer[4:] for layer in given], steps=60)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    asked, there = example.sampled([layer[:4] for layer in made], 1), example.sampled([layer[:4] for layer in given], 1)
    assert example.accuracy(there, there) > 0.99
    with torch.no_grad():
        assert example.accuracy(heads(asked), heads(there)) > example.accuracy(asked, there)
    example.draw(images[0], translated[0], [("frozen", made[1][0], given[1][0])], 30, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
