"""Options of `index` and `import` for the store, and the report on the store that was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from lookalike.stores.presets import DEFAULT_PRESET, PRESETS

_INDEXES = [name for name, preset in PRESETS.items() if preset.has_index]

Store = Annotated[
    str,
    typer.Option(
        help=f"Vector store: auto, exact, faiss, torch-exact, or a preset: {', '.join(_INDEXES)}. auto is exact below "
        f"10,000 vectors, else faiss ({DEFAULT_PRESET}). milvus:http://HOST:19530/NAME is a Milvus server, "
        "milvus:./FILE.db Milvus Lite; ?index=PRESET chooses its index. With --memory, --latency or --explain, auto is "
        "the fastest preset within these limits."
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(help="Maximum memory of the index while it is searched, such as 300MB.", show_default="any"),
]
Recall = Annotated[
    float,
    typer.Option(
        help="Minimum share of the ten nearest images that an approximate index finds, for image and text queries.",
        min=0.5,
        max=1.0,
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(help="Maximum time of one search, such as 5ms: the median on this machine.", show_default="any"),
]
Explain = Annotated[
    bool,
    typer.Option("--explain", help="Try every preset on a sample and print a table of their memory, recall and time."),
]


def store_report(store: str, recall: Mapping[str, Any]) -> list[str]:
    """Return lines about a store and its measured recall, with the table of presets if these were tried."""
    plan = recall.get("plan")
    line = f"  store {store}" + (f" ({plan['chosen']})" if plan else "")
    kinds = {"image": "image queries", "text": f"text queries ({recall.get('texts', 'captions')})"}
    measured = [
        f"{report['ann_recall_at_10']:.3f} on {report['queries']:,} {name}"
        for kind, name in kinds.items()
        if (report := recall.get(kind))
    ]
    if measured and not store.endswith("exact"):  # exact search has a recall of 1
        line += f": ann_recall_at_10 {', '.join(measured)}"
    if recall.get("query_ms") and plan:
        line += f"; {recall['query_ms']:.2g} ms a query"
    if recall.get("met") is False:
        line += f"; below the target of {recall['target']:.2f}, even with the best parameters that were tried"
    return [line, *(_table(plan) if plan else [])]


def _table(plan: Mapping[str, Any]) -> list[str]:
    """Return the table of the presets that were tried on a sample."""
    header = ("preset", "memory", "recall, image", "text", "ms on sample", "ms expected", "")
    rows = [
        (
            line["preset"],
            f"{line['memory'] / 1e6:,.1f} MB",
            *(_number(line[name]) for name in ("image", "text", "sample_ms", "expected_ms")),
            line["verdict"],
        )
        for line in plan["options"]
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(map(_cell, row, widths, range(len(row)))).rstrip() for row in [header, *rows]]
    return [f"  tried on {plan['sample']:,} vectors:", *(f"    {line}" for line in lines)]


def _cell(text: str, width: int, column: int) -> str:
    """Align text to the left and numbers to the right."""
    return text.ljust(width) if column in (0, 6) else text.rjust(width)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
