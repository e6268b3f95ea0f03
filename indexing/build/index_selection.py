"""Which index a collection gets: each preset that fits the memory is built on a sample, tuned for the recall and timed.

The fastest one that keeps the budget is built over all vectors, tuned and timed there once more, and must keep it there
too; else the next one is taken. What was tried and why is told in a table. It knows nothing of images or manifests.

Dimension letters: n vectors, m of them in the sample, q queries, d embedding width.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from indexing.build.budget import IndexBudget, megabytes
from indexing.build.stores import build_store, complete_store
from indexing.build.tuning import QuerySet, TuningReport, hold_out, tune
from lookalike.errors import BudgetImpossible, SourceError
from lookalike.rerank import normalized_rows
from lookalike.stores.presets import PRESETS, Preset, default_preset
from lookalike.stores.registry import AUTO, FAISS, open_store
from lookalike.types import Float16, Float32

Say = Callable[[str], object]

_SAMPLE = 50_000
_HELD_OUT = 300
_SEED = 1


@dataclass(frozen=True, slots=True)
class Option:
    """One line of the table.

    Attributes:
        preset: its name.
        memory: bytes of the index over all n vectors that stay resident.
        image: ann_recall_at_10 of image queries on the sample; None where it was not tried.
        text: the same of text queries; None where there were none, too.
        sample_ms: median milliseconds of a query on the sample.
        expected_ms: what to expect of all n, by the preset's growth.
        build_seconds: training and filling over the sample.
        params: the search parameters that reached the recall there.
        verdict: why it was taken or not.
        fit: whether it keeps the budget, as far as the sample tells.
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
    def worst(self) -> float:
        """The poorer recall of the two kinds of query."""
        return min((recall for recall in (self.image, self.text) if recall is not None), default=1.0)


@dataclass(frozen=True, slots=True)
class Built:
    """A finished store.

    Attributes:
        kind: the registered kind.
        params: the manifest's, chosen search parameters included.
        report: the manifest's `recall`, with the table as `plan` where presets were compared.
    """

    kind: str
    params: dict[str, Any]
    report: dict[str, Any]


def build_chosen(
    vectors: Float16, folder: Path, store: str, budget: IndexBudget, text: Float32 | None = None, say: Say | None = None
) -> Built:
    """Builds the store of a collection.

    Args:
        vectors: (n, d) float16 of about unit norm, usually a memory map.
        folder: where its files go.
        store: a kind, a preset, or `auto`.
        budget: what it may cost.
        text: (q, d) float32 unit vectors of text queries.
        say: called with what is being done.

    Raises:
        BudgetImpossible: nothing keeps the budget; names what comes nearest.
        UnknownStore, StoreUnavailable: as their names say.
    """
    tell = say or _silent
    if not budget.tight:
        built = _build(vectors, folder, store, budget, text)
        if built.report["met"] or store != AUTO:
            return built
        tell("the default index does not reach the recall; trying the others")
        _clear(folder)
    options = compare(vectors, candidates(store, len(vectors)), budget, folder, text, tell)
    return _build_best(vectors, folder, store, budget, text, options, tell)


def candidates(store: str, count: int) -> list[Preset]:
    """The presets that a name leaves to choose among.

    Raises:
        SourceError: a kind whose memory and time are not the index's to choose.
    """
    if store in PRESETS:
        return [PRESETS[store]]
    if store == FAISS:
        return [default_preset(count)]
    if store == AUTO:
        return [preset for preset in PRESETS.values() if count >= preset.min_rows]
    raise SourceError(f"--memory, --latency and --explain choose among presets; leave them out with --store {store}")


def require_possible(presets: Sequence[Preset], count: int, dim: int, budget: IndexBudget, surely: float = 1.0) -> None:
    """Whether any of the presets fits the memory.

    Args:
        presets: to choose among.
        count: n.
        dim: d.
        budget: its memory counts.
        surely: the share of n that there will be at least; what holds so many is not refused.

    Raises:
        BudgetImpossible: none does; names the smallest.
    """
    if budget.memory is None or not count:
        return
    smallest = min(presets, key=lambda preset: preset.memory_bytes(count, dim))
    needed = smallest.memory_bytes(count, dim)
    told = (
        needed if surely == 1 else smallest.memory_bytes(math.ceil(count * (2 - surely)), dim)
    )  # enough if there are more
    if needed > budget.memory and smallest.memory_bytes(max(1, int(surely * count)), dim) > budget.memory:
        raise BudgetImpossible(
            f"no index of {count:,} vectors of width {dim} fits into {megabytes(budget.memory)}: the smallest, "
            f"{smallest.name}, takes {megabytes(needed)}; give --memory {megabytes(told)}"
        )


def compare(
    vectors: Float16, presets: Sequence[Preset], budget: IndexBudget, folder: Path, text: Float32 | None, say: Say
) -> list[Option]:
    """The table: each preset on a sample of about 50,000 vectors, in a folder inside `folder` that goes again.

    Raises:
        BudgetImpossible: no preset fits the memory.
    """
    require_possible(presets, len(vectors), vectors.shape[1], budget)
    trial = _Trial.of(vectors, text)
    options = []
    for preset in presets:
        memory = preset.memory_bytes(*vectors.shape)
        if budget.memory is not None and memory > budget.memory:
            options.append(Option(preset.name, memory, verdict=f"takes {megabytes(memory)}"))
        elif len(trial.sample) < preset.min_rows:
            options.append(Option(preset.name, memory, verdict=f"wants {preset.min_rows:,} vectors to learn from"))
        else:
            say(f"trying {preset.name} on {len(trial.sample):,} vectors")
            options.append(trial.take(preset, memory, budget, folder))
    return options


def plan(options: Sequence[Option], chosen: str, sample: int) -> dict[str, Any]:
    """The table for the manifest; `verdict` of the chosen line says so."""
    lines = [replace(option, verdict="chosen") if option.preset == chosen else option for option in options]
    return {"sample": sample, "chosen": chosen, "options": [asdict(line) for line in lines]}


class _Trial:
    """A sample with queries that it does not hold."""

    def __init__(self, sample: Float16, held_out: QuerySet | None, text: Float32 | None, share: float) -> None:
        self.sample, self._held_out, self._text, self._share = sample, held_out, text, share

    @classmethod
    def of(cls, vectors: Float16, text: Float32 | None) -> _Trial:
        """Some rows as the sample and others as queries; all rows, and themselves as queries, where there are few."""
        count = len(vectors)
        if _sampled(count) == count:
            return cls(vectors, None, text, 1.0)
        rows = np.random.default_rng(_SEED).choice(count, _SAMPLE + _HELD_OUT, replace=False)
        held_out = QuerySet(normalized_rows(vectors[np.sort(rows[_SAMPLE:])]))
        return cls(vectors[np.sort(rows[:_SAMPLE])], held_out, text, count / _SAMPLE)

    def take(self, preset: Preset, memory: int, budget: IndexBudget, beside: Path) -> Option:
        """Builds and measures."""
        with tempfile.TemporaryDirectory(prefix="trial-", dir=beside) as folder:  # /tmp may be small, or memory
            tuned = _tuned(self.sample, Path(folder), preset.name, budget.recall, self._text, self._held_out)
        report, seconds = tuned[2:]
        taken = report.query_ms or 0.0
        expected = taken * self._share**preset.time_exponent
        measured = Option(
            preset.name, memory, report.recalls.get("image"), report.recalls.get("text"), taken, round(expected, 4),
            round(seconds, 2), report.params,
        )  # fmt: skip
        verdict = _shortfall(report, expected, budget)
        return replace(measured, verdict=verdict or "keeps the budget", fit=not verdict)


def _shortfall(report: TuningReport, milliseconds: float, budget: IndexBudget) -> str:
    """What is missing; "" where nothing is."""
    if not report.met:
        kind, recall = min(report.recalls.items(), key=lambda item: item[1])
        return f"recall {recall:.3f} for {kind} queries"
    if budget.latency is not None and milliseconds > budget.latency:
        return f"{milliseconds:.2g} ms a query"
    return ""


def _build_best(
    vectors: Float16,
    folder: Path,
    store: str,
    budget: IndexBudget,
    text: Float32 | None,
    options: list[Option],
    say: Say,
) -> Built:
    """Over all vectors, from the fastest on, until one keeps the budget there."""
    fitting = sorted((option for option in options if option.fit), key=lambda option: option.expected_ms or 0.0)
    for option in fitting:
        say(f"building {option.preset} over {len(vectors):,} vectors")
        built = _build(vectors, folder, option.preset, budget, text, asked=store)
        verdict = _broken(built, folder, budget)
        if not verdict:
            table = plan(options, option.preset, _sampled(len(vectors)))
            return replace(built, report={**built.report, "plan": table})
        size = _clear(folder)
        options[options.index(option)] = replace(
            option,
            fit=False,
            memory=max(option.memory, size),
            verdict=f"over all vectors {verdict}",
            expected_ms=built.report["query_ms"],
            **{kind: found["ann_recall_at_10"] for kind in ("image", "text") if (found := built.report[kind])},
        )
    raise BudgetImpossible(_nearest(options, budget))


def _build(
    vectors: Float16, folder: Path, store: str, budget: IndexBudget, text: Float32 | None, asked: str | None = None
) -> Built:
    kind, params, report, _ = _tuned(vectors, folder, store, budget.recall, text)
    return Built(kind, {"asked": asked or store, **params, **report.params}, report.to_dict())


def _tuned(
    vectors: Float16, folder: Path, store: str, recall: float, text: Float32 | None, image: QuerySet | None = None
) -> tuple[str, Mapping[str, object], TuningReport, float]:
    """A store built and tuned: its kind, its parameters, the report, and the seconds that building took.

    A graph is asked for rows that it does not hold yet. A search for a row of its own ends where that row is linked to
    its neighbours, and would find more of them than any other query: 0.954 where held-out ones find 0.925.
    """
    begun = time.perf_counter()
    held_out = hold_out(vectors) if image is None and store in PRESETS and PRESETS[store].is_graph else None
    kind, params = build_store(vectors, folder, store, held_out=held_out)
    seconds = time.perf_counter() - begun
    opened = open_store(kind, folder, vectors, params, 0 if held_out is None else len(held_out))
    report = tune(opened, vectors, image, text, recall, held_out=held_out)
    if held_out is not None:
        del opened
        complete_store(vectors, folder, held_out)
    return kind, params, report, seconds


def _broken(built: Built, folder: Path, budget: IndexBudget) -> str:
    """Which limit a finished store does not keep; "" for none."""
    report = built.report
    if not report["met"]:
        return f"it stays below recall {budget.recall:g}"
    if budget.latency is not None and (report["query_ms"] or 0.0) > budget.latency:
        return f"a query takes {report['query_ms']:.2g} ms"
    size = sum(path.stat().st_size for path in _files(folder))
    if budget.memory is not None and size > budget.memory:
        return f"it takes {megabytes(size)}"
    return ""


def _files(folder: Path) -> list[Path]:
    """What a store left there."""
    return list(folder.glob("index.*"))


def _clear(folder: Path) -> int:
    """Removes a store that is not wanted; returns its bytes."""
    size = 0
    for path in _files(folder):
        size += path.stat().st_size
        path.unlink()
    return size


def _sampled(count: int) -> int:
    """How many of n vectors the presets are tried on; all of them where too few would be left as queries."""
    return count if count <= _SAMPLE + _HELD_OUT else _SAMPLE


def _nearest(options: Sequence[Option], budget: IndexBudget) -> str:
    """Why nothing keeps the budget, and the smallest step that would make something do."""
    tried = [option for option in options if option.sample_ms is not None]
    lines = [f"{option.preset}: {option.verdict}" for option in options]
    if not tried:
        return f"no index keeps {budget} ({'; '.join(lines)})"
    enough = [option for option in tried if option.worst >= budget.recall]
    advice = []
    if enough and budget.latency is not None:
        quickest = min(enough, key=lambda option: option.expected_ms or 0.0)
        advice.append(f"--latency {_rounded_up(quickest.expected_ms or 0.0):g}ms would do for {quickest.preset}")
    elif enough:  # only its size over all vectors can be in the way
        least = min(enough, key=lambda option: option.memory)
        advice.append(f"--memory {megabytes(least.memory)} would do for {least.preset}")
    else:
        best = max(tried, key=lambda option: option.worst)
        advice.append(f"--recall {int(best.worst * 100) / 100:g} would do for {best.preset}")
    larger = [option for option in options if option.sample_ms is None and budget.memory is not None]
    if larger:
        smallest = min(larger, key=lambda option: option.memory)
        advice.append(f"--memory {megabytes(smallest.memory)} would let {smallest.preset} try")
    return f"no index keeps {budget} ({'; '.join(lines)}). {', or '.join(advice)}"


def _rounded_up(milliseconds: float) -> float:
    """Two digits, a fifth more than was measured."""
    return float(f"{1.2 * milliseconds:.1e}")


def _silent(text: str) -> None:
    """Nobody is watching."""
