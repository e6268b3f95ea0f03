"""The diagrams of the documentation name every package, layer and state, and are drawn from their sources."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from app.collections.state import TRANSITIONS, State

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs/images"
SOURCES = sorted(IMAGES.glob("*.dot"))
PACKAGES = (IMAGES / "packages.dot").read_text("utf-8")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]


def _layers(container: str | None) -> list[str]:
    """The layers of a package, or of the repository."""
    (contract,) = [
        each
        for each in CONTRACTS
        if each["type"] == "layers" and each.get("containers") == (None if container is None else [container])
    ]
    layers: list[str] = contract["layers"]
    return layers


def _words(text: str) -> list[str]:
    """The words of a source without its comments."""
    return re.findall(r"\w+", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))


def test_packages_diagram_names_every_package() -> None:
    named = set(_words(PACKAGES))
    assert {name for layer in _layers(None) for name in re.findall(r"\w+", layer)} <= named


@pytest.mark.parametrize("container", ["app", "indexing", "lookalike", "training"])
def test_packages_diagram_shows_layers_in_order(container: str) -> None:
    box = PACKAGES[PACKAGES.index(f"<b>{container}</b>") :].split("</table>")[0]
    rows = re.findall(r"<td[^>]*>([^<]*)</td>", box)
    layers = _layers(container)
    if container == "indexing":  # its lowest layer, six helpers, is summarised
        rows, layers = rows[:-1], layers[:-1]
    assert rows == layers


def test_state_diagram_shows_every_transition() -> None:
    source = (IMAGES / "collection-states.dot").read_text("utf-8").replace(r"\n", " ")
    assert {state.name for state in State} <= set(_words(source))
    drawn = {
        (start, event, end)
        for start, end, label in re.findall(r'(\w+) -> (\w+) \[label="([^"]*)"', source)
        for event in re.findall(r"\b[A-Z]+\b", label)
    }
    known = {(start.name, event.name, end.name) for (start, event), end in TRANSITIONS.items()}
    assert drawn <= known
    changes = {edge for edge in known if edge[0] != edge[2] and edge[1] != "RELEASED"}
    assert changes <= drawn


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_svg_has_every_word_of_its_source(source: Path) -> None:
    """The SVG was drawn again after its source had changed: `make diagrams`."""
    text = re.sub(r"^\s*//.*$", "", source.read_text("utf-8"), flags=re.MULTILINE)
    shown = re.findall(r"<[^<>]*>([^<>]+)", text) + re.findall(r'label="([^"]*)"', text)
    drawn = set(_words(source.with_suffix(".svg").read_text("utf-8")))
    assert {word for part in shown for word in _words(part.replace(r"\n", " "))} <= drawn
