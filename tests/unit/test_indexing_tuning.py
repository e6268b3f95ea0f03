"""Recall is measured as documented, and the cheapest sufficient parameters win."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from indexing.build import tuning
from indexing.build.query_sets import QuerySet, leave_one_out, query_budget
from indexing.build.stores import build_store
from indexing.build.tuning import TuningReport, tune
from lookalike.stores.exact import ExactStore
from lookalike.stores.protocol import SearchParameters
from lookalike.stores.registry import open_store
from lookalike.types import Bool, Float16, Float32, Neighbors


class Forgetful:
    """An exact store that keeps `candidates` rows, the true best ones, except every `nprobe`-th (ALL: none is lost)."""

    kind, exact, refines = "forgetful", False, False

    def __init__(self, vectors: Float16, ladder: Sequence[SearchParameters]) -> None:
        self._exact = ExactStore(vectors)
        self.count, self.dim = self._exact.count, self._exact.dim
        self._ladder = ladder
        self.defaults: SearchParameters = ladder[0]

    def param_grid(self) -> Sequence[SearchParameters]:
        return self._ladder

    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        keep = np.ones(self.count, dtype=bool)
        if params and params["nprobe"] < ALL:
            keep[:: params["nprobe"]] = False
        return self._exact.search(queries, k, mask=keep)


def unit(n: int, d: int, seed: int) -> Float32:
    x = np.random.default_rng(seed).standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


ALL = 1_000_000
LADDER: list[SearchParameters] = [{"nprobe": step, "candidates": 20} for step in (2, 4, 10, 50, ALL)]


@pytest.mark.parametrize(
    ("target", "expected", "tried"),
    [
        (0.4, 2, [2, 4, 10, 50]),  # and three more
        (0.7, 4, [2, 50, 4, 10, ALL]),
        (0.85, 10, [2, 50, 4, 10, ALL]),
        (0.95, 50, [2, 50, 4, 10, ALL]),
        (1.0, ALL, [2, 50, ALL]),
    ],
)
def test_first_sufficient_trial_wins_among_equals(
    target: float, expected: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing every s-th row loses 1/s of the neighbours of any query."""
    monkeypatch.setattr(tuning, "_MAX_TIME_RATIO", 0.0)
    vectors = unit(2_000, 16, seed=1).astype(np.float16)
    report = tune(Forgetful(vectors, LADDER), vectors, target=target)
    assert report.params["nprobe"] == expected
    assert report.met
    assert report.image is not None
    assert report.image.ann_recall_at_10 == pytest.approx(1 - 1 / expected, abs=0.02)
    assert [line["params"]["nprobe"] for line in report.sweep] == tried


@pytest.mark.parametrize(
    ("slow", "expected"), [({10: 0.3, ALL: 0.15}, 50), ({10: 0.3, 50: 0.15}, ALL), ({50: 0.15, ALL: 0.15}, 10)]
)
def test_fastest_sufficient_trial_wins(slow: dict[int, float], expected: int) -> None:
    """The first sufficient one turns out to be slow."""
    vectors = unit(1_000, 16, seed=1).astype(np.float16)

    class Uneven(Forgetful):
        def search(
            self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
        ) -> list[Neighbors]:
            time.sleep(slow.get(params["nprobe"], 0.0) if params else 0)
            return super().search(queries, k, params, mask)

    report = tune(Uneven(vectors, LADDER), vectors, target=0.85)
    assert report.params["nprobe"] == expected
    assert report.image is not None
    assert report.image.ann_recall_at_10 == pytest.approx(1 - 1 / expected, abs=0.02)


def test_missed_target_is_reported() -> None:
    vectors = unit(1_000, 16, seed=1).astype(np.float16)
    report = tune(Forgetful(vectors, LADDER[:-1]), vectors, target=0.999)
    assert not report.met
    assert report.params == LADDER[3]
    assert [line["params"]["nprobe"] for line in report.sweep] == [
        2,
        50,
    ]  # smaller ones lose more


def test_insufficient_params_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 pairs only those are tried that visit enough lists to suffice with the most candidates."""
    monkeypatch.setattr(tuning, "_MAX_TIME_RATIO", 0.0)
    vectors = unit(1_000, 16, seed=1).astype(np.float16)
    steps, most = [2, 3, 4, 6, 8, 10, 15, 20, 30, 40, 50, 100], [2, 10, 20, 100, 200]

    class Grid(Forgetful):
        def search(
            self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
        ) -> list[Neighbors]:
            found = super().search(queries, k, params, mask)
            kept = params["candidates"] if params else k
            return [Neighbors(f.rows[:kept], f.scores[:kept]) for f in found]

    trials = [{"nprobe": step, "candidates": count} for step in steps for count in most]
    report = tune(Grid(vectors, trials), vectors, target=0.93)
    assert report.params == {"nprobe": 20, "candidates": 20}  # of ten, one may be the query itself
    tried = [tuple(line["params"].values()) for line in report.sweep]
    assert tried == [
        (2, 200),
        (6, 200),
        (15, 200),
        (40, 200),
        (20, 200),
        (20, 2),
        (20, 10),
        (20, 20),
        (20, 100),
        (30, 2),
    ]


def test_text_queries_must_reach_target_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten neighbours of the texts are rows that only the last trial finds."""
    monkeypatch.setattr(tuning, "_MAX_TIME_RATIO", 0.0)
    vectors = unit(1_000, 16, seed=1)
    lost = np.arange(0, 1_000, 20)
    vectors[lost] = vectors[0] + 0.01 * vectors[lost]
    float16 = vectors.astype(np.float16)
    ladder: list[SearchParameters] = [{"nprobe": 20, "candidates": 20}, {"nprobe": ALL, "candidates": 20}]
    texts = np.repeat(vectors[:1], 7, axis=0)
    images = QuerySet(unit(50, 16, seed=5))
    assert tune(Forgetful(float16, ladder), float16, images, target=0.8).params["nprobe"] == 20
    report = tune(Forgetful(float16, ladder), float16, images, texts, target=0.8)
    assert report.params["nprobe"] == ALL
    assert report.text is not None
    assert report.text.queries == 7
    assert report.sweep[0]["text"] < 0.2 < 0.8 <= report.sweep[0]["image"]


def test_gallery_query_does_not_count_itself() -> None:
    """A store that only ever finds the query itself has recall zero."""
    vectors = unit(60, 16, seed=1).astype(np.float16)
    queries = leave_one_out(vectors)
    assert queries.own is not None

    class Mirror(Forgetful):
        def search(
            self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
        ) -> list[Neighbors]:
            return self._exact.search(queries, 1)

    report = tune(Mirror(vectors, LADDER[-1:]), vectors, queries)
    assert report.image is not None
    assert report.image.ann_recall_at_10 == 0.0
    assert not report.met


def test_reported_recall_is_less_by_standard_error() -> None:
    """Every other query finds all and the rest nothing: recall is 0.50, its standard error 0.05."""
    vectors = unit(500, 16, seed=1).astype(np.float16)

    class Unreliable(Forgetful):
        def search(
            self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
        ) -> list[Neighbors]:
            none = Neighbors(np.empty(0, np.int64), np.empty(0, np.float32))
            return [found if i % 2 else none for i, found in enumerate(self._exact.search(queries, k))]

    report = tune(Unreliable(vectors, LADDER[:1]), vectors, QuerySet(unit(100, 16, seed=5)), target=0.46)
    assert report.recalls == {"image": pytest.approx(0.45, abs=1e-4)}
    assert not report.met


def test_duplicates_do_not_count_as_misses() -> None:
    """Sixty equal vectors: any ten of them are right."""
    vectors = np.repeat(unit(1, 16, seed=1), 60, axis=0).astype(np.float16)
    report = tune(Forgetful(vectors, [{"nprobe": 2, "candidates": 20}]), vectors)
    assert report.image is not None
    assert report.image.ann_recall_at_10 == 1.0


@pytest.mark.parametrize("n", [1, 2, 5, 500])
def test_exact_store_has_recall_one(n: int) -> None:
    vectors = unit(n, 16, seed=1).astype(np.float16)
    report = tune(ExactStore(vectors), vectors, text=unit(3, 16, seed=2))
    assert report.met
    assert report.params == {}
    assert report.text is not None
    assert report.text.ann_recall_at_10 == 1.0
    assert report.image is None if n == 1 else report.image is not None and report.image.ann_recall_at_10 == 1.0


def test_faiss_store_reaches_target(tmp_path: Path) -> None:
    vectors = unit(3_000, 32, seed=1).astype(np.float16)
    kind, params = build_store(vectors, tmp_path, "faiss")
    store = open_store(kind, tmp_path, vectors, params)
    report = tune(store, vectors, text=unit(20, 32, seed=2), target=0.9)
    assert report.met
    assert set(report.params) == {"nprobe", "candidates"}
    assert_json_ready(report)
    assert report.query_ms is not None
    assert report.query_ms > 0


def test_choice_is_the_same_for_the_same_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(3_000, 32, seed=1).astype(np.float16)
    kind, params = build_store(vectors, tmp_path, "faiss")
    store = open_store(kind, tmp_path, vectors, params)
    reports = []
    for _ in range(2):
        monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=count().__next__))
        reports.append(tune(store, vectors, text=unit(20, 32, seed=2), target=0.9))
    assert reports[0].met
    assert (reports[0].params, reports[0].recalls) == (reports[1].params, reports[1].recalls)


def assert_json_ready(report: TuningReport) -> None:
    written = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert written["params"] == report.params
    assert report.image is not None
    assert written["image"] == {"queries": report.image.queries, "ann_recall_at_10": report.image.ann_recall_at_10}


def test_param_grid_ascends_in_cost(tmp_path: Path) -> None:
    vectors = unit(3_000, 32, seed=1).astype(np.float16)
    kind, params = build_store(vectors, tmp_path, "faiss")
    store = open_store(kind, tmp_path, vectors, params)
    trials = [dict(trial) for trial in store.param_grid()]  # type: ignore[attr-defined]
    assert trials[-1]["nprobe"] == params["nlist"]
    for candidates in {trial["candidates"] for trial in trials}:
        probes = [trial["nprobe"] for trial in trials if trial["candidates"] == candidates]
        assert probes == sorted(set(probes))


def test_query_budget_shrinks_with_the_collection() -> None:
    assert query_budget(500_000, 512) == 1_000
    assert 100 < query_budget(2_000_000, 512) < 1_000
    assert query_budget(100_000_000, 768) == 100
    assert query_budget(0, 512) == 1_000


def test_leave_one_out_is_deterministic() -> None:
    vectors = unit(300, 8, seed=1).astype(np.float16)
    first, again = leave_one_out(vectors, 50), leave_one_out(vectors, 50)
    assert first.own is not None
    assert again.own is not None
    assert np.array_equal(first.own, again.own)
    np.testing.assert_allclose(first.vectors, vectors[first.own].astype(np.float32), atol=1e-3)
