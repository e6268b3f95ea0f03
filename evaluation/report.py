"""Figures as one flat line of JSON and as a table for people; measures nothing and draws nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

SHORT = {"labels.": "", "pairs.image_image.": "pairs."}
"""Prefixes that flat names leave out: what is asked for most has the short name."""

TITLES = {"": "labels", "seen": "labels, seen classes", "unseen": "labels, unseen classes", "pairs": "image pairs"}
"""Headings of the table, by the flat names' first part."""


def flat(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Nested figures under dotted names, each class's precision left out.

    >>> flat({"images": 3, "labels": {"map_at_r": 0.5, "unseen": {"map_at_r": 0.4}}, "intervals": {"map_at_r": [0, 1]}})
    {'images': 3, 'map_at_r': 0.5, 'unseen.map_at_r': 0.4}
    """
    found: dict[str, Any] = {}
    for name, value in _leaves(figures, ""):
        for prefix, short in SHORT.items():
            if name.startswith(prefix):
                name = short + name.removeprefix(prefix)
        found[name] = value
    return found


def as_json(figures: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> str:
    """One line: the nested figures and, beside them, the same under flat names.

    With a baseline its nested figures stand under `baseline`, and flat ones under `baseline.<name>`.
    """
    both = dict(figures) | flat(figures)
    if baseline is not None:
        both |= {"baseline": dict(baseline)} | {f"baseline.{name}": value for name, value in flat(baseline).items()}
    return json.dumps(both, ensure_ascii=False, allow_nan=False)


def as_table(figures: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> str:
    """The figures for reading, with their intervals, and the baseline's beside them where there is one."""
    lines = [head(figures)]
    if baseline is not None:
        lines.append(f"baseline: {head(baseline)}")
    section = None
    for row in rows(figures, baseline):
        if row.section != section:
            lines += ["", f"{row.section:<32}{'':>10}" + ("" if baseline is None else f"{'':>18}  baseline")]
            section = row.section
        lines.append(_line(row, baseline is not None))
    lines += _category_lines(figures)
    if "seconds" in figures:
        lines += ["", f"{figures['seconds']:.1f} s" + (f"; {figures['command']}" if "command" in figures else "")]
    return "\n".join(line.rstrip() for line in lines)


class Row:
    """One line of the table: a measure, its value, its interval, and both of the baseline."""

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
        self.between, self.other_between = _ends(interval), _ends(other_interval)
        self.section = TITLES.get(part, part.replace(".", ", ").replace("_", " "))
        self.label = self.label.replace("_", " ")

    @staticmethod
    def text(value: float) -> str:
        """Counts as they are, everything else to four decimals."""
        return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _ends(interval: Sequence[float] | None) -> str:
    """An interval for reading, nothing where there is none."""
    return "" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def rows(figures: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> list[Row]:
    """Every number that is a measure or the size of its sample, section by section."""
    others = {} if baseline is None else flat(baseline)
    intervals, other_intervals = figures.get("intervals", {}), (baseline or {}).get("intervals", {})
    found = [
        Row(name, value, intervals.get(name), others.get(name), other_intervals.get(name))
        for name, value in flat(figures).items()
        if isinstance(value, int | float) and not name.startswith("encoder.") and name not in _HEAD
    ]
    order: list[str] = []
    for row in found:
        if row.section not in order:
            order.append(row.section)
    return sorted(found, key=lambda row: order.index(row.section))


def head(figures: Mapping[str, Any]) -> str:
    """Which encoder, and how many images."""
    spec = figures["encoder"]
    how = f"{spec['engine']} {spec['precision']} on {spec['device']}"
    return f"{spec['name']} ({how}): {figures['images']:,} images, {figures['rejected']:,} rejected"


_HEAD = {"images", "rejected", "seed", "seconds"}
_HIDDEN = {"intervals", "precision_at_10", "encoder.thresholds"}


def _leaves(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        if name in _HIDDEN or path in _HIDDEN:
            continue
        if isinstance(value, Mapping):
            found += _leaves(value, f"{path}.")
        else:
            found.append((path, value))
    return found


def _line(row: Row, compared: bool) -> str:
    other = "" if not compared else f"  {'-' if row.other is None else row.text(row.other):>8}{row.other_between:>18}"
    return f"  {row.label:<30}{row.text(row.value):>10}{row.between:>18}{other}"


def _category_lines(figures: Mapping[str, Any]) -> list[str]:
    found = figures.get("zero_shot")
    if not found:
        return []
    precision = sorted(found["precision_at_10"].items(), key=lambda each: (-each[1], each[0]))
    shown = ", ".join(f"{name} {value:.2f}" for name, value in precision[:40])
    more = "" if len(precision) <= 40 else f", and {len(precision) - 40} more classes in the JSON"
    return ["", f"P@10 of {found['prompt']!r}: {shown}{more}"]
