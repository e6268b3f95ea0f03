"""Texts about ImageNet's classes, and their pseudo photographs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lookalike.encoders.lite.constants import CLASSES, MINILM, TEXT_FEATURES
from training.lite.classes import class_texts, concept_space, pseudo_features


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


def test_class_vectors_are_principal_components_of_names(texts):
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randn(len(text.prompts), TEXT_FEATURES, generator=draw) for text in texts]
    space = concept_space(texts, prompts)
    expected = []
    for part, components in ((slice(None, MINILM), space.minilm), (slice(MINILM, None), space.use)):
        rows = prompts[7][:, part]
        names = F.normalize(rows[: len(texts[7].names)], dim=-1).mean(0)
        gloss = rows[texts[7].prompts.index(texts[7].gloss)]
        vector = F.normalize(F.normalize(names, dim=-1) + F.normalize(gloss, dim=-1), dim=-1)
        expected.append(F.normalize(vector @ components, dim=-1) / 2**0.5)
        torch.testing.assert_close(components.T @ components, torch.eye(components.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(space.class_vectors[7], torch.cat(expected), atol=1e-5, rtol=0)


def test_pseudo_photograph_is_a_step_along_classifier_row():
    row, photo, mean, spread = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]]), torch.ones(2), torch.ones(2)
    made = pseudo_features(row, photo, mean, spread, scale=1.0, noise=0.5)
    # 1 + sqrt(2) * 0.6 + 0.5 * (2 - 1) and 1 + sqrt(2) * 0.8 + 0.5 * (0 - 1)
    torch.testing.assert_close(made, torch.tensor([[1.5 + 2**0.5 * 0.6, 0.5 + 2**0.5 * 0.8]]))
    plain = pseudo_features(row, photo, mean, spread, scale=1.0, noise=0.0)
    torch.testing.assert_close(F.normalize(plain - mean, dim=-1), F.normalize(row, dim=-1))
