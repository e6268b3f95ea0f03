"""Thresholds, groups, near-duplicates and paging, compared with a loop over all rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.build.stores import build_store
from lookalike.collapse import group_numbers
from lookalike.errors import QueryError
from lookalike.filters import Filter
from lookalike.match_calibration import MatchCalibration
from lookalike.metadata import Metadata, write_metadata
from lookalike.result_selection import Probabilities, ResultSelector, Selected
from lookalike.row_search import RowSearcher, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.stores.registry import open_store
from lookalike.types import Float16, Float32

COUNT, DIM = 600, 8
MAX_CANDIDATES = 120
"""So few that some searches go on exactly."""
COLOURS = ["red", "green", None, "blue"]


def unit(rows: Any) -> Float32:
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> Float16:
    """Rows of which many are near-identical to others."""
    random = np.random.default_rng(3)
    centres = unit(random.standard_normal((150, DIM)))
    return unit(centres[random.integers(0, 150, COUNT)] + 0.05 * random.standard_normal((COUNT, DIM))).astype(
        np.float16
    )


@pytest.fixture(scope="module")
def folder(vectors: Float16, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("results")
    number = np.arange(COUNT)
    columns = {
        "id": [f"{i}" for i in number],
        "colour": [COLOURS[i % 4] for i in number],
        "number": number % 11,
        "shop": [{"name": f"shop {i % 3}", "tags": ["a"]} for i in number],
        "tags": [[f"{i % 2}"] for i in number],
    }
    table = pa.table(columns)
    write_metadata(folder, table.schema, [table])
    build_store(vectors, folder, "faiss")
    return folder


@pytest.fixture(scope="module", params=["exact", "faiss"])
def selector(request: pytest.FixtureRequest, vectors: Float16, folder: Path) -> ResultSelector:
    params = {} if request.param == "exact" else {"nprobe": 999, "candidates": COUNT}
    metadata = Metadata(folder)
    rows = RowSearcher(open_store(request.param, folder, vectors, params), vectors, metadata, MAX_CANDIDATES)
    return ResultSelector(rows, vectors, metadata, MAX_CANDIDATES)


def selected(selector: ResultSelector, query: Float32, options: SearchOptions, **more: Any) -> Selected:
    return selector.select(query[None], options, more.get("probabilities"), Stopwatch())[0]


def naive(vectors: Float16, query: Float32, options: SearchOptions) -> tuple[list[int], list[int]]:
    """Return the rows of the results and their numbers of duplicates, by comparing everything with everything."""
    full = unit(vectors)
    scores, cosines = full @ query, full @ full.T
    kept: list[int] = []
    duplicates: Counter[int] = Counter()
    sizes: Counter[Any] = Counter()
    for row in sorted(range(len(full)), key=lambda row: (-scores[row], row)):
        if options.min_score is not None and scores[row] < options.min_score:
            break
        near = [k for k in kept if options.deduplicate is not None and cosines[k, row] >= options.deduplicate]
        if near:
            duplicates[near[0]] += 1
            continue
        group = COLOURS[row % 4] if options.group_by == "colour" else None
        if group is not None and sizes[group] >= options.group_size:
            continue
        sizes[group] += 1
        kept.append(row)
    page = kept[options.offset : options.offset + options.limit]
    return page, [duplicates[row] for row in page]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 50),
    limit=st.integers(1, 60),
    offset=st.integers(0, 60),
    min_score=st.none() | st.floats(-0.5, 0.95),
    group_size=st.none() | st.integers(1, 30),
    deduplicate=st.none() | st.sampled_from([0.97, 0.99]),
)
def test_results_equal_those_of_a_loop_over_all_rows(
    selector: ResultSelector,
    vectors: Float16,
    seed: int,
    limit: int,
    offset: int,
    min_score: float | None,
    group_size: int | None,
    deduplicate: float | None,
) -> None:
    query = unit(np.random.default_rng(seed).standard_normal(DIM))
    options = SearchOptions(
        limit,
        offset=offset,
        min_score=min_score,
        group_by="colour" if group_size else None,
        group_size=group_size or 1,
        deduplicate=deduplicate,
    )
    page = selected(selector, query, options)
    rows, duplicates = naive(vectors, query, options)
    assert page.rows.tolist() == rows
    assert all(found <= expected for found, expected in zip(page.duplicates, duplicates, strict=True))
    if page.groups is not None:
        assert page.groups == [COLOURS[row % 4] for row in rows]


def test_all_duplicates_among_the_candidates_are_counted(selector: ResultSelector, vectors: Float16) -> None:
    query = unit(vectors[7])
    options = SearchOptions(3, deduplicate=0.97)
    assert list(selected(selector, query, options).duplicates) == naive(vectors, query, options)[1]


def test_results_of_a_full_group_do_not_shorten_the_page(selector: ResultSelector) -> None:
    options = SearchOptions(120, group_by="colour")
    page = selected(selector, unit(np.ones(DIM)), options)
    assert len(page.rows) == 120
    assert page.groups is not None
    assert Counter(group for group in page.groups if group) == {"red": 1, "green": 1, "blue": 1}


def test_group_may_be_a_field_of_a_record(selector: ResultSelector) -> None:
    page = selected(selector, unit(np.ones(DIM)), SearchOptions(10, group_by="shop.name", group_size=2))
    assert Counter(page.groups or []) == {"shop 0": 2, "shop 1": 2, "shop 2": 2}


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("tags", "column 'tags' holds 'list<element: string>', not one value for each item"),
        ("shop", "not one value for each item"),
        ("shop.tags", "not one value for each item"),
        ("shop.size", "'shop.size': shop has no field 'size'"),
        ("color", "unknown metadata column 'color'; did you mean 'colour'?"),
    ],
)
def test_columns_without_single_values_do_not_group(folder: Path, column: str, message: str) -> None:
    with pytest.raises(QueryError) as error:
        Metadata(folder).check_single_valued(column)
    assert message.replace("element", "item") in str(error.value).replace("element", "item")


def test_pages_continue_each_other(selector: ResultSelector, vectors: Float16) -> None:
    query, options = unit(np.ones(DIM)), SearchOptions(7, deduplicate=0.97, group_by="colour", group_size=9)
    whole = naive(vectors, query, replace(options, limit=35))[0]
    pages = [selected(selector, query, replace(options, offset=offset)).rows.tolist() for offset in range(0, 35, 7)]
    assert [row for page in pages for row in page] == whole


STEP = MatchCalibration(intercept=-800.0, score=1_000.0)
"""Almost 1 above a cosine of 0.8, and almost 0 below."""


def test_no_match_is_independent_of_offset_and_min_score(selector: ResultSelector, vectors: Float16) -> None:
    probabilities = Probabilities(STEP, unit(vectors[:50]))
    near, far = unit(vectors[0]), unit(-vectors.astype(np.float32).mean(0))
    assert naive(vectors, far, SearchOptions(1, min_score=0.8))[0] == []
    for options in (SearchOptions(5), SearchOptions(5, offset=80), SearchOptions(5, min_score=0.9999)):
        assert selected(selector, near, options, probabilities=probabilities).no_match is False
        assert selected(selector, far, options, probabilities=probabilities).no_match is True


def test_min_probability_cuts_the_results(selector: ResultSelector, vectors: Float16) -> None:
    probabilities, query = Probabilities(STEP, unit(vectors[:50])), unit(vectors[0])
    page = selected(selector, query, SearchOptions(200, min_probability=0.5), probabilities=probabilities)
    assert page.rows.tolist() == naive(vectors, query, SearchOptions(200, min_score=0.8))[0]


@pytest.mark.parametrize("colour", [None, "red"])
def test_probability_counts_the_items_that_pass(selector: ResultSelector, vectors: Float16, colour: str | None) -> None:
    model, sample = replace(STEP, intercept=0.0, score=1.0, standard_score=0.5, log_count=-0.3), unit(vectors[:50])
    query = unit(np.ones(DIM))
    condition = Filter.model_validate({"must": [{"field": "colour", "equals": colour}]}) if colour else None
    options = SearchOptions(5, filter=condition, offset=2)
    page = selected(selector, query, options, probabilities=Probabilities(model, sample))
    count = COUNT // 4 if colour else COUNT
    np.testing.assert_allclose(page.probabilities, model.probabilities(page.scores, sample @ query, count), rtol=1e-5)  # type: ignore[arg-type]


def test_filter_without_items_is_no_match(selector: ResultSelector, vectors: Float16) -> None:
    nothing = Filter.model_validate({"must": [{"field": "colour", "equals": "black"}]})
    options = SearchOptions(5, filter=nothing)
    page = selected(selector, unit(np.ones(DIM)), options, probabilities=Probabilities(STEP, unit(vectors[:50])))
    assert (page.rows.tolist(), page.no_match) == ([], True)
    assert selected(selector, unit(np.ones(DIM)), options).no_match is None


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (pa.array(["x", None, "y", "x"]), [0, -1, 1, 0]),
        (pa.array(["x", None, "x"], pa.string_view()), [0, -1, 0]),
        (pa.array(["x", None, "x"]).dictionary_encode(), [0, -1, 0]),
        (pa.array([1.5, float("nan"), 1.5]), [0, -1, 0]),
        (pa.array(np.array([0.5, 0.5], np.float16)), [0, 0]),
        (pa.array([True, False, None]), [0, 1, -1]),
        (pa.array([b"0123456789abcdef"] * 2, pa.uuid()), [0, 0]),
        (pa.nulls(2), [-1, -1]),
        (pa.array([], pa.string()), []),
    ],
)
def test_rows_of_equal_value_are_of_one_group(values: pa.Array, numbers: list[int], tmp_path: Path) -> None:
    table = pa.table({"id": [str(i) for i in range(len(values))], "value": values})
    write_metadata(tmp_path, table.schema, [table])
    assert group_numbers("value", Metadata(tmp_path)).tolist() == numbers
