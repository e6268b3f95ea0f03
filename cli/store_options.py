"""The options of `index` and `import` that decide the index, and how its choice is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lookalike.stores.presets import DEFAULT_PRESET, PRESETS

if TYPE_CHECKING:
    from indexing.build.budget import IndexBudget

_INDEXES = [name for name, preset in PRESETS.items() if preset.has_index]

Store = Annotated[
    str,
    typer.Option(
        help=f"auto, exact, faiss, torch-exact, or a preset: {', '.join(_INDEXES)}. auto is exact below 10,000 "
        f"vectors, else faiss ({DEFAULT_PRESET}); with --memory, --latency or --explain it is the fastest preset "
        "that keeps them."
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(help="Most memory that the index may hold while it is searched, such as 300MB.", show_default="any"),
]
Recall = Annotated[
    float,
    typer.Option(
        help="Share of the true ten nearest that an approximate index must find, for images and for texts.",
        min=0.5,
        max=1.0,
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(help="Most time that one search may take (median, on this machine), such as 5ms.", show_default="any"),
]
Explain = Annotated[bool, typer.Option("--explain", help="Try every preset on a sample and print the table.")]


def index_budget(recall: float, memory: str | None, latency: str | None, explain: bool) -> IndexBudget:
    """The options as the job takes them.

    Raises:
        ConfigInvalid: no size, or no time.
    """
    from indexing.build.budget import IndexBudget, parse_latency, parse_memory

    return IndexBudget(
        recall,
        None if memory is None else parse_memory(memory),
        None if latency is None else parse_latency(latency),
        explain,
    )


def quality(store: str, recall: Mapping[str, Any]) -> list[str]:
    """Lines about a store and its measured recall; the table of presets where there is one."""
    plan = recall.get("plan")
    line = f"  store {store}" + (f" ({plan['chosen']})" if plan else "")
    kinds = {"image": "image queries", "text": f"text queries ({recall.get('texts', 'captions')})"}
    measured = [
        f"{report['ann_recall_at_10']:.3f} on {report['queries']:,} {name}"
        for kind, name in kinds.items()
        if (report := recall.get(kind))
    ]
    if measured and not store.endswith("exact"):  # exact search finds all, by construction
        line += f": ann_recall_at_10 {', '.join(measured)}"
    if recall.get("query_ms") and plan:
        line += f"; {recall['query_ms']:.2g} ms a query"
    if recall.get("met") is False:
        line += f"; below the {recall['target']:.2f} asked for, these are the best parameters that were tried"
    return [line, *(_table(plan) if plan else [])]


def _table(plan: Mapping[str, Any]) -> list[str]:
    """What was tried on the sample."""
    head = ("preset", "memory", "recall, image", "text", "ms on sample", "ms expected", "")
    rows = [
        (
            line["preset"],
            f"{line['memory'] / 1e6:,.1f} MB",
            *(_number(line[name]) for name in ("image", "text", "sample_ms", "expected_ms")),
            line["verdict"],
        )
        for line in plan["options"]
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(map(_cell, row, widths, range(len(row)))).rstrip() for row in [head, *rows]]
    return [f"  tried on {plan['sample']:,} vectors:", *(f"    {line}" for line in lines)]


def _cell(text: str, width: int, column: int) -> str:
    """Words to the left, numbers to the right."""
    return text.ljust(width) if column in (0, 6) else text.rjust(width)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
