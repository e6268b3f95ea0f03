"""`docs/reference/errors.md` has a heading for every code of the library's error tree, and for no other."""

from __future__ import annotations

import re
from pathlib import Path

from lookalike.errors import LookalikeError

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "errors.md"


def _tree(root: type[LookalikeError]) -> set[type[LookalikeError]]:
    """The subclasses that the library itself defines, at any depth."""
    children = {child for child in root.__subclasses__() if child.__module__ == "lookalike.errors"}
    return children.union(*map(_tree, children))


def test_every_error_code_has_a_heading() -> None:
    headings = re.findall(r"^### (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(headings)) == len(headings)
    assert set(headings) == {error.code for error in _tree(LookalikeError)}


def test_codes_are_unique_and_classes_documented() -> None:
    errors = sorted(_tree(LookalikeError), key=lambda error: error.__name__)
    assert len({error.code for error in errors}) == len(errors)
    assert all(error.__doc__ for error in errors)
