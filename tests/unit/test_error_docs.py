"""`docs/reference/errors.md` has a heading for every code, and for no other; every error class has its text."""

from __future__ import annotations

import re
from pathlib import Path

from app.errors import HTTP_CODES
from lookalike.errors import LookalikeError

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "errors.md"


def _tree(root: type[LookalikeError]) -> set[type[LookalikeError]]:
    """The subclasses that the library and the service define, at any depth."""
    children = {child for child in root.__subclasses__() if child.__module__ in ("lookalike.errors", "app.errors")}
    return children.union(*map(_tree, children))


def test_every_error_code_has_a_heading() -> None:
    headings = re.findall(r"^### (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(headings)) == len(headings)
    assert set(headings) == {error.code for error in _tree(LookalikeError)} | HTTP_CODES.keys()


def test_codes_are_unique_and_classes_documented() -> None:
    errors = sorted(_tree(LookalikeError), key=lambda error: error.__name__)
    assert len({error.code for error in errors} | HTTP_CODES.keys()) == len(errors) + len(HTTP_CODES)
    assert all("\n\n" in (error.__doc__ or "") for error in errors), "the error, then what to do"
