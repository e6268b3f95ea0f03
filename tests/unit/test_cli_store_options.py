"""Options for the index, and the report on the index that was chosen."""

from __future__ import annotations

import pytest

from cli.store_options import store_report
from indexing.build.budget import IndexBudget, parse_budget
from lookalike.errors import ConfigInvalid

LINE = {"image": None, "text": None, "sample_ms": None, "expected_ms": None}
TRIED = {"image": 0.953, "text": 0.9512, "sample_ms": 0.31, "expected_ms": 0.43, "verdict": "chosen"}
PLAN = {
    "sample": 50_000,
    "chosen": "ivf-pq4",
    "options": [
        {"preset": "ivf-pq4", "memory": 14_100_000, **TRIED},
        {"preset": "ivf-flat", "memory": 206_000_000, **LINE, "verdict": "takes 206MB"},
    ],
}
REPORT = {
    "target": 0.95,
    "met": True,
    "image": {"queries": 1000, "ann_recall_at_10": 0.9581},
    "text": {"queries": 389, "ann_recall_at_10": 0.9502},
    "texts": "prompts",
    "query_ms": 0.4412,
}


def test_parse_budget_parses_options() -> None:
    assert parse_budget(0.95, None, None, False) == IndexBudget()
    assert parse_budget(0.9, "300MB", "5ms", True) == IndexBudget(0.9, 300_000_000, 5.0, True)
    with pytest.raises(ConfigInvalid, match="'soon' is no time"):
        parse_budget(0.9, None, "soon", False)


def test_store_report_has_recall_of_images_and_texts() -> None:
    assert store_report("faiss", REPORT) == [
        "  store faiss: ann_recall_at_10 0.958 on 1,000 image queries, 0.950 on 389 text queries (prompts)"
    ]
    assert store_report("exact", REPORT) == ["  store exact"]
    missed = store_report("faiss", {**REPORT, "met": False})[0]
    assert missed.endswith("below the target of 0.95, even with the best parameters that were tried")


def test_store_report_has_the_table_of_presets() -> None:
    first, *table = store_report("faiss", {**REPORT, "plan": PLAN})
    assert first.startswith("  store faiss (ivf-pq4): ann_recall_at_10 0.958")
    assert first.endswith("; 0.44 ms a query")
    assert table == [
        "  tried on 50,000 vectors:",
        "    preset      memory  recall, image   text  ms on sample  ms expected",
        "    ivf-pq4    14.1 MB          0.953  0.951         0.310        0.430  chosen",
        "    ivf-flat  206.0 MB                                                   takes 206MB",
    ]
