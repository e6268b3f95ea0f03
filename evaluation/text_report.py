"""Metrics as a line of JSON with flat names, and as a text table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

SHORT_PREFIXES = {"labels.": "", "pairs.image_image.": "pairs."}
"""Prefixes that flat names shorten."""

TITLES = {"": "labels", "seen": "labels, seen classes", "unseen": "labels, unseen classes", "pairs": "image pairs"}
"""Headings of the table, by the flat names' first part."""


def flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested metrics to dotted names, without each class's precision.

    >>> flat({"images": 3, "labels": {"map_at_r": 0.5, "unseen": {"map_at_r": 0.4}}, "intervals": {"map_at_r": [0, 1]}})
    {'images': 3, 'map_at_r': 0.5, 'unseen.map_at_r': 0.4}
    """
    flattened: dict[str, Any] = {}
    for name, value in _flat_items(metrics, ""):
        for prefix, short in SHORT_PREFIXES.items():
            if name.startswith(prefix):
                name = short + name.removeprefix(prefix)
        flattened[name] = value
    return flattened


def as_json(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> str:
    """Format as one line: the nested metrics, and the same under flat names.

    A baseline's nested metrics are under `baseline`, its flat ones under `baseline.<name>`.
    """
    both = dict(metrics) | flat(metrics)
    if baseline is not None:
        both |= {"baseline": dict(baseline)} | {f"baseline.{name}": value for name, value in flat(baseline).items()}
    return json.dumps(both, ensure_ascii=False, allow_nan=False)


def as_table(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> str:
    """Format as a table: the metrics with their intervals, next to those of the baseline."""
    lines = [summary_line(metrics)]
    if baseline is not None:
        lines.append(f"baseline: {summary_line(baseline)}")
    section = None
    for row in rows(metrics, baseline):
        if row.section != section:
            lines += ["", f"{row.section:<32}{'':>10}" + ("" if baseline is None else f"{'':>18}  baseline")]
            section = row.section
        lines.append(_line(row, baseline is not None))
    lines += _category_lines(metrics)
    if "seconds" in metrics:
        lines += ["", f"{metrics['seconds']:.1f} s" + (f"; {metrics['command']}" if "command" in metrics else "")]
    return "\n".join(line.rstrip() for line in lines)


class Row:
    """A line of the table: a metric, its value and interval, and those of the baseline."""

    def __init__(
        self,
        name: str,
        value: float,
        interval: Sequence[float] | None,
        other: float | None,
        other_interval: Sequence[float] | None,
    ) -> None:
        part, _, self.label = name.rpartition(".")
        self.name, self.value, self.other = name, value, other
        self.interval, self.other_interval = _interval_text(interval), _interval_text(other_interval)
        self.section = TITLES.get(part, part.replace(".", ", ").replace("_", " "))
        self.label = self.label.replace("_", " ")

    @staticmethod
    def text(value: float) -> str:
        """Format a count as it is, other values to four decimals."""
        return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _interval_text(interval: Sequence[float] | None) -> str:
    """Format an interval; "" for none."""
    return "" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def rows(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> list[Row]:
    """Return every metric and count, section by section."""
    others = {} if baseline is None else flat(baseline)
    intervals, other_intervals = metrics.get("intervals", {}), (baseline or {}).get("intervals", {})
    unordered = [
        Row(name, value, intervals.get(name), others.get(name), other_intervals.get(name))
        for name, value in flat(metrics).items()
        if isinstance(value, int | float) and not name.startswith("encoder.") and name not in _SUMMARY_NAMES
    ]
    order: list[str] = []
    for row in unordered:
        if row.section not in order:
            order.append(row.section)
    return sorted(unordered, key=lambda row: order.index(row.section))


def summary_line(metrics: Mapping[str, Any]) -> str:
    """Return the encoder and the number of images."""
    spec = metrics["encoder"]
    how = f"{spec['engine']} {spec['precision']} on {spec['device']}"
    return f"{spec['name']} ({how}): {metrics['images']:,} images, {metrics['rejected']:,} rejected"


_SUMMARY_NAMES = {"images", "rejected", "seed", "seconds"}
_HIDDEN_NAMES = {"intervals", "precision_at_10", "encoder.thresholds"}


def _flat_items(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        if name in _HIDDEN_NAMES or path in _HIDDEN_NAMES:
            continue
        if isinstance(value, Mapping):
            items += _flat_items(value, f"{path}.")
        else:
            items.append((path, value))
    return items


def _line(row: Row, compared: bool) -> str:
    other = "" if not compared else f"  {'-' if row.other is None else row.text(row.other):>8}{row.other_interval:>18}"
    return f"  {row.label:<30}{row.text(row.value):>10}{row.interval:>18}{other}"


def _category_lines(metrics: Mapping[str, Any]) -> list[str]:
    zero_shot = metrics.get("zero_shot")
    if not zero_shot:
        return []
    precision = sorted(zero_shot["precision_at_10"].items(), key=lambda each: (-each[1], each[0]))
    shown = ", ".join(f"{name} {value:.2f}" for name, value in precision[:40])
    more = "" if len(precision) <= 40 else f", and {len(precision) - 40} more classes in the JSON"
    return ["", f"P@10 of {zero_shot['prompt']!r}: {shown}{more}"]
