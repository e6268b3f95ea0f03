"""The report of the frontier: rows, selection of points, tables and the plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.frontier.systems import Params
from evaluation.extras import import_extra

OURS, BASE = "lookalike", "flat"
MIN_RECALL_STEP = 0.005
"""Points of one system that are closer in recall than this are redundant."""


@dataclass(frozen=True)
class Row:
    """One system at one set of search parameters.

    Attributes:
        system: its name.
        params: its search parameters.
        recall: ann_recall_at_10 on held-out queries.
        qps: queries/s in batches, median of the rounds.
        single_ms: median milliseconds of a single query.
        build_s: seconds from the vectors to the index on disk.
        build_cpu_s: CPU seconds of all cores, which other work on the machine hardly changes.
        bytes_per_vector: growth of the process from opening the index to its last answer, without
            `reclaimable_bytes_per_vector`, over n.
        reclaimable_bytes_per_vector: pages of the vectors that are mapped for re-ranking, over n.
        index_bytes_per_vector: the index on disk, over n.
        chosen: whether the system chose these parameters itself.
        tune_s: seconds of choosing them, where building does not include that.
        build_own_mb: peak of anonymous memory while building and tuning, 2**20 bytes.
        build_peak_mb: the same with mapped files, such as the vectors.
        index: name of the index that was built.
        library: name and version.
        n: vectors.
    """

    system: str
    params: Params
    recall: float
    qps: float
    single_ms: float
    build_s: float
    build_cpu_s: float
    bytes_per_vector: float
    reclaimable_bytes_per_vector: float
    index_bytes_per_vector: float
    chosen: bool
    tune_s: float
    build_own_mb: float
    build_peak_mb: float
    index: str
    library: str
    n: int


@dataclass(frozen=True)
class Point:
    """Search parameters with their recall and speed."""

    params: Params
    recall: float
    qps: float
    chosen: bool = False


def parse_systems(text: str, known: Iterable[str]) -> list[str]:
    """Split names of systems at commas; keep each once, in order.

    Raises:
        ValueError: one is unknown, or there is none.

    >>> parse_systems("flat, lookalike,flat", ["flat", "lookalike"])
    ['flat', 'lookalike']
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    if not names:
        raise ValueError(f"name at least one of {', '.join(known)}")
    return names


def staircase(points: Sequence[Point], target: float) -> list[Point]:
    """Select the points to time, from points in order of cost.

    Selected is what raises recall by `MIN_RECALL_STEP`, what first reaches the target, and what the system chose.
    """
    kept: list[Point] = []
    best = -1.0
    for point in points:
        if point.chosen or point.recall >= best + MIN_RECALL_STEP or best < target <= point.recall:
            kept.append(point)
            best = max(best, point.recall)
    return kept


def fastest(rows: Iterable[Row], system: str, recall: float) -> Row | None:
    """Return the row of a system with the most queries/s among those of at least a recall, or None."""
    candidates = [row for row in rows if row.system == system and row.recall >= recall]
    return max(candidates, key=lambda row: row.qps, default=None)


def summary(rows: Sequence[Row], target: float) -> str:
    """Return a Markdown table with a line for each system and its fastest point at the target."""
    base = fastest(rows, BASE, 0)
    lines = [
        "| system | index | build, s | of all cores | tuning, s | building, own MB | with mapped pages "
        "| resident bytes a vector | + pages of vectors | on disk "
        f"| queries/s at recall >= {target:g} | x flat | one query there, ms |",
        "| --- | --- |" + " ---: |" * 11,
    ]
    for system in dict.fromkeys(row.system for row in rows):
        row, best = next(r for r in rows if r.system == system), fastest(rows, system, target)
        cells = [
            f"{system} ({row.library})",
            row.index,
            *(f"{seconds:.1f}" for seconds in (row.build_s, row.build_cpu_s, row.tune_s)),
            *(f"{size:,.0f}" for size in (row.build_own_mb, row.build_peak_mb)),
            *(f"{size:,.0f}" for size in _bytes(row)),
            *("---" if best is None else (f"{best.qps:,.0f}", _times(best.qps, base), f"{best.single_ms:.2f}")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table with a line for each point, and how many times as fast ours is at the same recall."""
    base = fastest(rows, BASE, 0)
    lines = [
        "| system | search parameters | ann_recall_at_10 | queries/s | x flat | one query, ms | ours at that recall |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        ours = fastest(rows, OURS, row.recall)
        ratio = "" if row.system == OURS else "-" if ours is None else f"{ours.qps / row.qps:.1f} x"
        lines.append(
            f"| {row.system} | {describe(row.params)}{' (its choice)' if row.chosen else ''} | {row.recall:.4f} "
            f"| {row.qps:,.0f} | {_times(row.qps, base)} | {row.single_ms:.2f} | {ratio} |"
        )
    return "\n".join(lines)


def describe(params: Mapping[str, int]) -> str:
    """Format parameters for a table.

    >>> describe({"nprobe": 32, "candidates": 100})
    'nprobe 32, candidates 100'
    """
    return ", ".join(f"{name} {value}" for name, value in params.items())


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG of recall against queries/s, with a line for each system.

    Raises:
        ExtraMissing: matplotlib is not installed.
    """
    figure = import_extra("matplotlib.figure").Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for system in dict.fromkeys(row.system for row in rows):
        points = sorted((row for row in rows if row.system == system), key=lambda row: (row.recall, -row.qps))
        label = f"{system}, {points[0].bytes_per_vector:,.0f} bytes a vector"
        axis.plot([p.recall for p in points], [p.qps for p in points], "o-", ms=4, label=label)
    _name_axes(axis, rows[0].n)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _name_axes(axis: Any, count: int) -> None:
    axis.set_yscale("log")
    axis.set_xlabel("ann_recall_at_10")
    axis.set_ylabel("queries/s in batches")
    axis.set_title(f"{count:,} vectors", fontsize=10)
    axis.grid(which="both", alpha=0.25)
    axis.legend(fontsize=8, frameon=False, loc="lower left")


def _bytes(row: Row) -> tuple[float, float, float]:
    return row.bytes_per_vector, row.reclaimable_bytes_per_vector, row.index_bytes_per_vector


def _times(qps: float, base: Row | None) -> str:
    return "" if base is None else f"{qps / base.qps:.1f}"
