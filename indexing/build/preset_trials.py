"""Trials of presets on a sample of the vectors: recall, time and memory of each, and whether it fits the budget.

Dimension letters: n vectors, m of them in the sample, d embedding width.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexing.build.budget import IndexBudget, format_size
from indexing.build.candidates import require_possible
from indexing.build.query_sets import QuerySet
from indexing.build.tuned_store import build_and_tune
from indexing.build.tuning import TuningReport
from lookalike.rerank import normalized_rows
from lookalike.stores.presets import Preset
from lookalike.types import Float16, Float32

ProgressCallback = Callable[[str], object]
"""Called with the name of each step."""

_SAMPLE_VECTORS = 50_000
_HELD_OUT_QUERIES = 300
_SEED = 1


@dataclass(frozen=True, slots=True)
class PresetTrial:
    """The trial of one preset: a line of the table.

    Attributes:
        preset: its name.
        memory: bytes of the index over all n vectors that stay resident.
        image: ann_recall_at_10 of image queries on the sample; None where it was not tried.
        text: the same of text queries; None without text queries too.
        sample_ms: median milliseconds of a query on the sample.
        expected_ms: estimate for all n vectors, by the preset's growth.
        build_seconds: training and filling over the sample.
        params: the search parameters that reached the recall there.
        verdict: why it was chosen or not.
        fit: whether it fits the budget on the sample.
    """

    preset: str
    memory: int
    image: float | None = None
    text: float | None = None
    sample_ms: float | None = None
    expected_ms: float | None = None
    build_seconds: float | None = None
    params: Mapping[str, int] | None = None
    verdict: str = ""
    fit: bool = False

    @property
    def lowest_recall(self) -> float:
        """The lower recall of the two kinds of query."""
        return min((recall for recall in (self.image, self.text) if recall is not None), default=1.0)


def try_presets(
    vectors: Float16,
    presets: Sequence[Preset],
    budget: IndexBudget,
    folder: Path,
    text: Float32 | None,
    on_progress: ProgressCallback,
) -> list[PresetTrial]:
    """Try each preset on a sample of about 50,000 vectors, in a temporary folder inside `folder`.

    Raises:
        BudgetImpossible: no preset fits the memory.
    """
    require_possible(presets, len(vectors), vectors.shape[1], budget)
    sample = _Sample.draw(vectors, text)
    trials = []
    for preset in presets:
        memory = preset.memory_bytes(*vectors.shape)
        if budget.memory is not None and memory > budget.memory:
            trials.append(PresetTrial(preset.name, memory, verdict=f"takes {format_size(memory)}"))
        elif len(sample.vectors) < preset.min_rows:
            trials.append(PresetTrial(preset.name, memory, verdict=f"needs {preset.min_rows:,} vectors to train on"))
        else:
            on_progress(f"trying {preset.name} on {len(sample.vectors):,} vectors")
            trials.append(sample.measure(preset, memory, budget, folder))
    return trials


def sample_size(count: int) -> int:
    """Return how many of n vectors the presets are tried on; all where too few would remain as queries."""
    return count if count <= _SAMPLE_VECTORS + _HELD_OUT_QUERIES else _SAMPLE_VECTORS


@dataclass(frozen=True, slots=True)
class _Sample:
    """A sample of the vectors, with queries that it does not hold.

    Attributes:
        vectors: (m, d) float16.
        held_out: image queries; None to search the sample's own vectors, each without itself.
        text: unit vectors of text queries.
        growth: n / m.
    """

    vectors: Float16
    held_out: QuerySet | None
    text: Float32 | None
    growth: float

    @classmethod
    def draw(cls, vectors: Float16, text: Float32 | None) -> _Sample:
        """Draw the sample and other rows as queries; where there are few rows, all are both."""
        count = len(vectors)
        if sample_size(count) == count:
            return cls(vectors, None, text, 1.0)
        rows = np.random.default_rng(_SEED).choice(count, _SAMPLE_VECTORS + _HELD_OUT_QUERIES, replace=False)
        held_out = QuerySet(normalized_rows(vectors[np.sort(rows[_SAMPLE_VECTORS:])]))
        return cls(vectors[np.sort(rows[:_SAMPLE_VECTORS])], held_out, text, count / _SAMPLE_VECTORS)

    def measure(self, preset: Preset, memory: int, budget: IndexBudget, parent: Path) -> PresetTrial:
        """Build and tune the preset in a temporary folder inside `parent`."""
        with tempfile.TemporaryDirectory(prefix="trial-", dir=parent) as folder:  # /tmp may be small, or memory
            tuned = build_and_tune(self.vectors, Path(folder), preset.name, budget.recall, self.text, self.held_out)
        report = tuned.report
        sample_ms = report.query_ms or 0.0
        expected_ms = sample_ms * self.growth**preset.time_exponent
        missed = _missed_limit(report, expected_ms, budget)
        return PresetTrial(
            preset=preset.name,
            memory=memory,
            image=report.recalls.get("image"),
            text=report.recalls.get("text"),
            sample_ms=sample_ms,
            expected_ms=round(expected_ms, 4),
            build_seconds=round(tuned.build_seconds, 2),
            params=report.params,
            verdict=missed or "keeps the budget",
            fit=not missed,
        )


def _missed_limit(report: TuningReport, expected_ms: float, budget: IndexBudget) -> str:
    """Return which limit is missed, and by what; "" for none."""
    if not report.met:
        kind, recall = min(report.recalls.items(), key=lambda item: item[1])
        return f"recall {recall:.3f} for {kind} queries"
    if budget.latency is not None and expected_ms > budget.latency:
        return f"{expected_ms:.2g} ms a query"
    return ""
