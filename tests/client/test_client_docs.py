"""The page on the Python client names all that the package has."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest

import lookalike_client
from lookalike_client import Client, results
from lookalike_client.results import Source
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "python-client.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", lookalike_client.__all__)
def test_name_is_documented(name: str) -> None:
    assert re.search(rf"`{name}\b", PAGE)


@pytest.mark.parametrize("name", [name for name, _ in inspect.getmembers(Client, callable) if not name.startswith("_")])
def test_method_is_documented(name: str) -> None:
    assert re.search(rf"`(Client\.)?{name}\(", PAGE)


@pytest.mark.parametrize(
    "name", [name for name in lookalike_client.__all__ if dataclasses.is_dataclass(getattr(results, name, None))]
)
def test_fields_of_results_are_documented(name: str) -> None:
    kind = getattr(results, name)
    (row,) = [line for line in PAGE.splitlines() if re.match(rf"\| [^|]*`{name}`[^|]* \|", line)]
    names = {field.name for field in dataclasses.fields(kind)}
    if issubclass(kind, Source):
        names -= {field.name for field in dataclasses.fields(Source)}
        assert "source" in row
    assert names <= set(re.findall(r"`(\w+)`", row))
