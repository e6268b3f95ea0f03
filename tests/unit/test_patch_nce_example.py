"""The example of PatchNCE: heads trained on some photographs find places in others, and a plot is written."""

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
    inverted = example.negatives(images)
    keys, queries = example.features(images), example.features(inverted)
    assert [layer.shape[1] for layer in keys] == [24, 40, 80]
    heads, losses = example.learn([layer[4:] for layer in queries], [layer[4:] for layer in keys], steps=60)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    test_queries = example.sample_places([layer[:4] for layer in queries], 1)
    test_keys = example.sample_places([layer[:4] for layer in keys], 1)
    assert example.accuracy(test_keys, test_keys) > 0.99
    with torch.no_grad():
        assert example.accuracy(heads(test_queries), heads(test_keys)) > example.accuracy(test_queries, test_keys)
    example.draw(images[0], inverted[0], [("frozen", queries[1][0], keys[1][0])], 30, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
