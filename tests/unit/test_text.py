"""Normalization of text queries."""

from __future__ import annotations

import doctest

import pytest

from lookalike import text as text_module
from lookalike.text import normalize_text


def test_examples_of_normalization_hold() -> None:
    assert doctest.testmod(text_module).failed == 0


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a dog on the beach",
        "Größe: 5 m, l'été à la plage",
        'a cat\'s "toy" & 3 < 4',
        "日本の山",
        "собака на пляже",
        "नमस्ते दुनिया",
        "می\u200cروم",
        "👩\u200d🚀 ❤\ufe0f 🏳\ufe0f\u200d🌈",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert normalize_text(text) == text


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("  a \t red\r\n\u00a0\u3000shoe ", "a red shoe"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("\uff52\uff45\uff44 \ufb02ower", "red flower"),
        ("\ufeffred\u200b\u00adder\u2060 \u202ashoe\u202c", "redder shoe"),
        ("re\x00d\x07 \x1b[31mshoe\x7f", "red [31mshoe"),
        ("a \u200b b", "a b"),
        ("\x00\x01", ""),
        ("\u200b\u200d\ufeff", ""),
        (" \u2028\u0085 ", ""),
        ("", ""),
    ],
)
def test_text_is_normalized(text: str, normalized: str) -> None:
    assert normalize_text(text) == normalized
    assert normalize_text(normalized) == normalized
