"""The wording check finds each phrase and each identifier that it is for, and nothing else."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.conftest import load_script


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return load_script("check_wording")


@pytest.mark.parametrize(
    "text",
    [
        "# It Mends itself.",
        "what is at\thand".replace("\t", " "),
        "The client is told.",
        "It lets in ten.",
        "Come again",
    ],
)
def test_phrase_is_found_with_its_line(check: ModuleType, text: str) -> None:
    (line,) = check.findings("docs/a.md", f"\n{text}\n")
    assert line.startswith("docs/a.md:2: ")


def test_identifier_is_found_but_not_the_word(check: ModuleType) -> None:
    (line,) = check.findings("a.py", 'def read_picture() -> str:\n    return "a picture"  # a picture\n')
    assert line == "a.py:1: 'read_picture'; write: image"


def test_phrase_is_found_over_a_line_break(check: ModuleType) -> None:
    (line,) = check.findings("docs/a.md", "weights that are at\nhand")
    assert line.startswith("docs/a.md:1: ")


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.js", "const pictureBox = 1;"), ("a.html", '<p id="picture-box">'), ("a.md", "Call `load_picture()`.")],
)
def test_identifier_is_found_outside_python(check: ModuleType, name: str, text: str) -> None:
    (line,) = check.findings(name, text)
    assert "write: image" in line


@pytest.mark.parametrize("text", ["amended, commend", "as told by", "outlets in", "training_pictures = pictures"])
def test_other_words_pass(check: ModuleType, text: str) -> None:
    assert not list(check.findings("a.md", text))


def test_public_names_pass(check: ModuleType) -> None:
    assert not list(check.findings("a.py", "training_pictures = pictures\n"))
    assert not list(check.findings("a.py", 'KEYS = {"hint": "mend"}\n'))
