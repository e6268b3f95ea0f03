"""The choice of a collection's index: the fastest preset that fits the budget of memory, recall and latency.

Each preset that fits the memory is tried on a sample. The fastest that fits the budget there is built over all vectors
and measured once more; if it misses a limit, the next one is built. The manifest keeps the table of trials.

Dimension letters: n vectors, q queries, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from indexing.build.budget import IndexBudget, format_size
from indexing.build.candidates import candidates
from indexing.build.preset_trials import PresetTrial, ProgressCallback, sample_size, try_presets
from indexing.build.tuned_store import build_and_tune
from lookalike.errors import BudgetImpossible
from lookalike.stores.registry import AUTO
from lookalike.types import Float16, Float32


@dataclass(frozen=True, slots=True)
class BuiltStore:
    """A finished store.

    Attributes:
        kind: the registered kind.
        params: the manifest's, chosen search parameters included.
        report: the manifest's `recall`, with the table of trials as `plan` where presets were compared.
    """

    kind: str
    params: dict[str, Any]
    report: dict[str, Any]


def build_within_budget(
    vectors: Float16,
    folder: Path,
    store: str,
    budget: IndexBudget,
    text: Float32 | None = None,
    on_progress: ProgressCallback | None = None,
) -> BuiltStore:
    """Build the store of a collection.

    Args:
        vectors: (n, d) float16 of about unit norm, usually a memory map.
        folder: for the store's files.
        store: a kind, a preset, or `auto`.
        budget: limits of the index.
        text: (q, d) float32 unit vectors of text queries.
        on_progress: called with the name of each step.

    Raises:
        BudgetImpossible: no preset fits the budget; the message names what comes nearest.
        UnknownStore: the store is not registered.
        StoreUnavailable: the library behind the store failed.
    """
    report_step = on_progress or _ignore
    if not budget.needs_trials:
        built = _build(vectors, folder, store, budget, text)
        if built.report["met"] or store != AUTO:
            return built
        report_step("the default index does not reach the recall; trying the others")
        _remove_index(folder)
    trials = try_presets(vectors, candidates(store, len(vectors)), budget, folder, text, report_step)
    return _build_fastest(vectors, folder, store, budget, text, trials, report_step)


def build_chosen(
    vectors: Float16, folder: Path, store: str, plan: Mapping[str, Any], budget: IndexBudget, text: Float32 | None
) -> BuiltStore:
    """Build the preset that was chosen for an earlier version of the collection, without trying the others again.

    Args:
        vectors: (n, d) float16 of about unit norm, usually a memory map.
        folder: for the store's files.
        store: as it was asked for.
        plan: the earlier version's table of trials.
        budget: of which the recall is tuned for.
        text: (q, d) float32 unit vectors of text queries.

    Raises:
        StoreUnavailable: the library behind the store failed.
    """
    built = _build(vectors, folder, str(plan["chosen"]), budget, text, requested=store)
    return replace(built, report={**built.report, "plan": dict(plan)})


def _build_fastest(
    vectors: Float16,
    folder: Path,
    store: str,
    budget: IndexBudget,
    text: Float32 | None,
    trials: list[PresetTrial],
    on_progress: ProgressCallback,
) -> BuiltStore:
    """Build presets over all vectors, from the fastest on, until one fits the budget there."""
    fitting = sorted((trial for trial in trials if trial.fit), key=lambda trial: trial.expected_ms or 0.0)
    for trial in fitting:
        on_progress(f"building {trial.preset} over {len(vectors):,} vectors")
        built = _build(vectors, folder, trial.preset, budget, text, requested=store)
        missed = _missed_limit(built, folder, budget)
        if not missed:
            table = _selection_table(trials, trial.preset, sample_size(len(vectors)))
            return replace(built, report={**built.report, "plan": table})
        size = _remove_index(folder)
        trials[trials.index(trial)] = replace(
            trial,
            fit=False,
            memory=max(trial.memory, size),
            verdict=f"over all vectors {missed}",
            expected_ms=built.report["query_ms"],
            **{kind: recall["ann_recall_at_10"] for kind in ("image", "text") if (recall := built.report[kind])},
        )
    raise BudgetImpossible(_suggestion(trials, budget))


def _build(
    vectors: Float16, folder: Path, store: str, budget: IndexBudget, text: Float32 | None, requested: str | None = None
) -> BuiltStore:
    tuned = build_and_tune(vectors, folder, store, budget.recall, text)
    params = {"asked": requested or store, **tuned.params, **tuned.report.params}
    return BuiltStore(tuned.kind, params, tuned.report.to_dict())


def _selection_table(trials: Sequence[PresetTrial], chosen: str, sample: int) -> dict[str, Any]:
    """Return the table of trials for the manifest; the verdict of the chosen line is "chosen"."""
    lines = [replace(trial, verdict="chosen") if trial.preset == chosen else trial for trial in trials]
    return {"sample": sample, "chosen": chosen, "options": [asdict(line) for line in lines]}


def _missed_limit(built: BuiltStore, folder: Path, budget: IndexBudget) -> str:
    """Return which limit a finished store misses; "" for none."""
    report = built.report
    if not report["met"]:
        return f"it stays below recall {budget.recall:g}"
    if budget.latency is not None and (report["query_ms"] or 0.0) > budget.latency:
        return f"a query takes {report['query_ms']:.2g} ms"
    size = sum(path.stat().st_size for path in _index_files(folder))
    if budget.memory is not None and size > budget.memory:
        return f"it takes {format_size(size)}"
    return ""


def _index_files(folder: Path) -> list[Path]:
    return list(folder.glob("index.*"))


def _remove_index(folder: Path) -> int:
    """Remove the files of a store that was not chosen; return their size in bytes."""
    size = 0
    for path in _index_files(folder):
        size += path.stat().st_size
        path.unlink()
    return size


def _suggestion(trials: Sequence[PresetTrial], budget: IndexBudget) -> str:
    """Return why no preset fits the budget, and the smallest change that would let one fit."""
    verdicts = "; ".join(f"{trial.preset}: {trial.verdict}" for trial in trials)
    tried = [trial for trial in trials if trial.sample_ms is not None]
    if not tried:
        return f"no index keeps {budget} ({verdicts})"
    hints = [_nearest_fit(tried, budget)]
    if budget.memory is not None and (untried := [trial for trial in trials if trial.sample_ms is None]):
        smallest = min(untried, key=lambda trial: trial.memory)
        hints.append(f"--memory {format_size(smallest.memory)} would allow {smallest.preset}")
    return f"no index keeps {budget} ({verdicts}). {', or '.join(hints)}"


def _nearest_fit(tried: Sequence[PresetTrial], budget: IndexBudget) -> str:
    """Return the option that would suffice for one of the presets that were tried."""
    accurate = [trial for trial in tried if trial.lowest_recall >= budget.recall]
    if accurate and budget.latency is not None:
        fastest = min(accurate, key=lambda trial: trial.expected_ms or 0.0)
        return f"--latency {_rounded_up(fastest.expected_ms or 0.0):g}ms would suffice for {fastest.preset}"
    if accurate:  # only its size over all vectors can be too large
        smallest = min(accurate, key=lambda trial: trial.memory)
        return f"--memory {format_size(smallest.memory)} would suffice for {smallest.preset}"
    best = max(tried, key=lambda trial: trial.lowest_recall)
    return f"--recall {int(best.lowest_recall * 100) / 100:g} would suffice for {best.preset}"


def _rounded_up(milliseconds: float) -> float:
    """Return a fifth more than was measured, in two digits."""
    return float(f"{1.2 * milliseconds:.1e}")


def _ignore(step: str) -> None:
    pass
