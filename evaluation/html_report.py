"""The HTML report of an evaluation: report.html, self-contained, and figures.json with the same metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from evaluation.evaluate import Evaluation
from evaluation.illustrations import Illustration, illustrate
from evaluation.text_report import Row, as_json, rows, summary_line
from evaluation.thumbnails import ReportThumbnails
from lookalike.errors import SourceError

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;max-width:1080px;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.4rem 0 .4rem;border-bottom:1px solid #e5e7eb}
p{max-width:78ch;margin:.4rem 0}code{font-size:.85em;overflow-wrap:anywhere}.meta{color:#6b7280;font-size:.9rem}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th{text-align:left;padding:.9rem .9rem .2rem 0}td{padding:.12rem .9rem .12rem 0}td.n{text-align:right}
td.i{color:#6b7280}
img.plot{max-width:100%;height:auto}.row{display:flex;gap:.5rem;margin:.5rem 0;align-items:flex-start}
figure{margin:0;width:92px;font-size:.68rem;line-height:1.25;text-align:center;overflow-wrap:anywhere}
figure img{width:84px;height:84px;object-fit:cover;border:4px solid #e5e7eb;border-radius:4px;display:block}
figure.right img{border-color:#22a55a}figure.wrong img{border-color:#dc5b4f}figure.query img{border-color:#1f2937}
.said{width:190px;font-size:.85rem;align-self:center}
"""


def write_report(
    folder: Path,
    result: Evaluation,
    baseline: Evaluation | None = None,
    *,
    training_log: Path | None = None,
    seed: int = 0,
) -> Path:
    """Write `folder`/report.html and `folder`/figures.json.

    Args:
        folder: created if needed.
        result: the evaluation.
        baseline: another encoder's evaluation on the same data.
        training_log: JSON lines of a training run: `step`, `loss`, `learning_rate`, `validation.<name>`.
        seed: of the projections, and of which images are shown.

    Returns:
        The path of report.html.

    Raises:
        ExtraMissing: matplotlib, scikit-learn or umap-learn is not installed.
        SourceError: the training log can't be read, or the folder can't be written to.
    """
    curves = [] if training_log is None else read_training_log(training_log)
    baseline_metrics = None if baseline is None else baseline.metrics
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "figures.json").write_text(_indented_json(result.metrics, baseline_metrics), encoding="utf-8")
        sections = illustrate(result, baseline, curves, ReportThumbnails(), seed)
        page.write_text(_page(result.metrics, baseline_metrics, sections), encoding="utf-8")
    except OSError as error:
        raise SourceError(f"the report can't be written to {folder}: {error.strerror or error}") from error
    return page


def read_training_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a training log that have a step.

    Raises:
        SourceError: the file does not exist, or a line is no JSON object.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} can't be read as JSON lines: {error}") from error
    if not all(isinstance(line, dict) for line in lines):
        raise SourceError(f"{path} has a line that is no JSON object")
    return [line for line in lines if isinstance(line.get("step"), int)]


def _indented_json(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> str:
    return json.dumps(json.loads(as_json(metrics, baseline)), indent=1, ensure_ascii=False) + "\n"


def _page(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None, sections: list[Illustration]) -> str:
    name = escape(str(metrics["encoder"]["name"]))
    body = [
        f"<h1>{name}</h1>",
        f'<p class="meta">{escape(summary_line(metrics))}</p>',
        "" if baseline is None else f'<p class="meta">baseline: {escape(summary_line(baseline))}</p>',
        f'<p class="meta">{escape(_run_line(metrics))}</p>',
        f"<p><code>{escape(str(metrics.get('command', '')))}</code></p>",
        "<h2>Metrics</h2>",
        _table(metrics, baseline),
        *(f"<h2>{escape(each.title)}</h2><p>{escape(each.caption)}</p>{each.html}" for each in sections),
    ]
    start = '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    view = '<meta name="viewport" content="width=device-width">'
    top = f"{start}{view}<title>{name}: evaluation</title><style>{_STYLE}</style></head>"
    return f"{top}<body>{''.join(body)}</body></html>\n"


def _run_line(metrics: Mapping[str, Any]) -> str:
    started = f"{metrics['started']}, " if "started" in metrics else ""
    seconds = f"measured in {metrics['seconds']:.1f} s, " if "seconds" in metrics else ""
    return f"{started}{seconds}seed {metrics['seed']}"


def _table(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> str:
    lines, section = [], None
    for row in rows(metrics, baseline):
        if row.section != section:
            section = row.section
            baseline_heads = "" if baseline is None else "<th>baseline</th><th>95 % interval</th><th>difference</th>"
            lines.append(f"<tr><th>{escape(section)}</th><th></th><th>95 % interval</th>{baseline_heads}</tr>")
        cells = f'<td>{escape(row.label)}</td><td class="n">{row.text(row.value)}</td><td class="i">{row.interval}</td>'
        lines.append(f"<tr>{cells}{'' if baseline is None else _baseline_cells(row)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _baseline_cells(row: Row) -> str:
    if row.other is None:
        return "<td></td><td></td><td></td>"
    equal = isinstance(row.value, int) or row.value == row.other
    difference = "" if equal else f"{row.value - row.other:+.4f}"
    shown = f'<td class="n">{row.text(row.other)}</td><td class="i">{row.other_interval}</td>'
    return f'{shown}<td class="n">{difference}</td>'
