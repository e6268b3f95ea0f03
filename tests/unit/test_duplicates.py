"""Groups of near-identical images, compared with a naive search; `lookalike duplicates` on files."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from cli.main import app
from indexing.job import IndexSettings, run_index
from lookalike import duplicates
from lookalike.duplicates import DuplicateGroup, duplicate_groups
from lookalike.stores.exact import ExactStore
from lookalike.types import Float16
from tests.bad_images import encoded, make_image


def naive(vectors: Float16, threshold: float) -> set[tuple[int, ...]]:
    """Return the connected components, by merging sets."""
    full = vectors.astype(np.float64)
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    groups = [{row} for row in range(len(full))]
    for row, other in zip(*np.nonzero(np.triu(full @ full.T >= threshold, 1)), strict=True):
        joined = [group for group in groups if row in group or other in group]
        groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    return {tuple(sorted(group)) for group in groups if len(group) > 1}


def family(seed: int, count: int) -> Float16:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, 6))[random.integers(0, count, count)] + random.normal(0, 0.15, (count, 6))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("exact_up_to", [0, 1000])
@settings(deadline=None, max_examples=30)
@example(seed=5444, count=23, threshold=0.995)  # a pair lies 5e-6 below the threshold
@given(seed=st.integers(0, 10_000), count=st.integers(1, 30), threshold=st.sampled_from([0.9, 0.97, 0.995]))
def test_groups_are_connected_components(exact_up_to: int, seed: int, count: int, threshold: float) -> None:
    vectors = family(seed, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BLOCK_ROWS", 7)
        patch.setattr(duplicates, "_QUERIES_PER_SEARCH", 7)
        patch.setattr(duplicates, "MAX_EXACT_ROWS", exact_up_to)
        compared: list[int] = []
        groups = duplicate_groups(vectors, threshold, ExactStore(vectors), compared.append)
    assert {group.rows for group in groups} == naive(vectors, threshold)
    assert sum(compared) == count
    assert all(threshold - 1e-4 <= group.cosine <= 1 for group in groups)
    assert [len(group.rows) for group in groups] == sorted((len(group.rows) for group in groups), reverse=True)


@pytest.mark.parametrize("exact_up_to", [0, 10_000])
@pytest.mark.parametrize("noise", [0.0, 2e-3])
def test_memory_is_limited_with_thousands_of_copies(
    exact_up_to: int, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs lie at the threshold and are checked in float64, which would take 2 GB at once."""
    monkeypatch.setattr(duplicates, "MAX_EXACT_ROWS", exact_up_to)
    random = np.random.default_rng(0)
    rows = random.standard_normal((1, 64)) / 8 + noise * random.standard_normal((2_000, 64)) / 8
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    tracemalloc.start()
    try:
        groups = duplicate_groups(vectors, 1.0, ExactStore(vectors))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(group.rows) for group in groups] == ([] if noise else [2_000])
    assert peak < 300e6


def test_equal_vectors_form_one_group_of_cosine_1() -> None:
    vectors = np.eye(4, dtype=np.float16)[[0, 1, 0, 2, 0]]
    assert duplicate_groups(vectors, 0.99, ExactStore(vectors)) == [DuplicateGroup((0, 2, 4), pytest.approx(1.0))]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a collection of four images; one has a recompressed and a resized copy, whose name HTML must escape."""
    folder = tmp_path_factory.mktemp("duplicates")
    gallery = folder / "gallery"
    gallery.mkdir()
    for colour in ("red", "lime", "blue"):
        (gallery / f"{colour}.png").write_bytes(encoded(Image.new("RGB", (40, 40), colour), "PNG"))
    for name, data in {
        "a.png": encoded(make_image(seed=5), "PNG"),
        "b.jpg": encoded(make_image(seed=5), "JPEG"),
        "<b>&.png": encoded(make_image(seed=5).resize((80, 60)), "PNG"),
    }.items():
        (gallery / name).write_bytes(data)
    run_index(IndexSettings((str(gallery),), folder / "collection", encoder="fake"))
    return folder / "collection"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["duplicates", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_command_prints_text_and_json_and_writes_page(collection: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    text = run(str(collection), "--page", str(page), "--threshold", "0.99")
    assert "1 groups of images" in text
    assert "2 of 6 images are duplicates" in text
    html = page.read_text()
    assert html.count("<figure>") == html.count("data:image/jpeg;base64,") == 3
    assert "&lt;b&gt;&amp;.png" in html
    assert "<b>&.png" not in html
    result = json.loads(run(str(collection), "--threshold", "0.99", "--json"))
    assert result["items"] == 6
    assert [sorted(group["ids"]) for group in result["groups"]] == [["<b>&.png", "a.png", "b.jpg"]]


def test_unwritable_page_is_an_error_before_comparing(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise AssertionError("minutes of work for nothing")

    monkeypatch.setattr(duplicates, "duplicate_groups", fail)
    with pytest.raises(Exception, match="can't be written"):
        run(str(collection), "--page", str(tmp_path / "no" / "page.html"))


def test_few_pairs_of_copies_are_joined_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    joins, real = [0], duplicates._DisjointSets.join

    def join(self: Any, *pair: Any) -> None:
        joins[0] += 1
        real(self, *pair)

    monkeypatch.setattr(duplicates._DisjointSets, "join", join)
    rows = np.repeat(np.eye(8)[:2], 2_500, axis=0) + np.random.default_rng(0).normal(0, 0.02, (5_000, 8))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    groups = duplicate_groups(vectors, 0.9, ExactStore(vectors))
    assert [len(group.rows) for group in groups] == [2_500, 2_500]
    assert joins[0] < 500_000  # of 6,247,500 pairs
