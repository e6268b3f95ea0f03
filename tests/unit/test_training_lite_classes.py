"""Texts about ImageNet's classes, and their pseudo photographs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from training.lite.classes import CLASSES, class_texts, class_vectors, pseudo_features


@pytest.fixture(scope="module")
def texts():
    return class_texts()


def test_every_class_has_names_photo_prompts_and_a_gloss(texts):
    assert len(texts) == CLASSES
    for text in texts:
        assert 1 <= len(text.names) <= 4
        assert text.prompts[: len(text.names)] == text.names
        assert f"a photo of a {text.names[0]}" in text.prompts
        assert text.gloss in text.prompts
        assert text.gloss.startswith(f"{text.names[0]}: ")


def test_class_order_is_the_classifiers(texts):
    assert texts[0].names[0] == "tench"
    assert "goldfish" in texts[1].names
    assert "tiger cat" in texts[282].names


def test_class_vectors_follow_the_formula(texts):
    two = texts[:2]
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randn(len(text.prompts), 8, generator=draw) for text in two]
    vectors, mean = class_vectors(two, prompts, 0.5)
    expected = []
    for text, rows in zip(two, prompts, strict=True):
        names = sum(row / row.norm() for row in rows[: len(text.names)])
        gloss = rows[text.prompts.index(text.gloss)]
        both = names / names.norm() + gloss / gloss.norm()
        expected.append(both / both.norm())
    centre = 0.5 * (expected[0] + expected[1]) / 2
    torch.testing.assert_close(mean, centre)
    torch.testing.assert_close(vectors, torch.stack([(row - centre) / (row - centre).norm() for row in expected]))


def test_pseudo_photograph_is_a_step_along_classifier_row():
    row, photo, mean, spread = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]]), torch.ones(2), torch.ones(2)
    made = pseudo_features(row, photo, mean, spread, scale=1.0, noise=0.5)
    # 1 + sqrt(2) * 0.6 + 0.5 * (2 - 1) and 1 + sqrt(2) * 0.8 + 0.5 * (0 - 1)
    torch.testing.assert_close(made, torch.tensor([[1.5 + 2**0.5 * 0.6, 0.5 + 2**0.5 * 0.8]]))
    plain = pseudo_features(row, photo, mean, spread, scale=1.0, noise=0.0)
    torch.testing.assert_close(F.normalize(plain - mean, dim=-1), F.normalize(row, dim=-1))
