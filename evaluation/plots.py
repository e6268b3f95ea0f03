"""Plots of an evaluation as PNG bytes, by matplotlib without a window or global state.

Dimension letters: n images, d embedding width.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.extras import import_extra
from evaluation.pair_evaluation import PairSample
from lookalike.types import Float32, Float64, UInt8

BLUE, ORANGE, GREY, INK = "#2563eb", "#ea7317", "#9aa3af", "#1f2937"
_MAX_COLOURS = 20
_SMOOTHING_WINDOWS = 40  # windows of a loss curve's moving average


def curves_plot(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot loss, validation metrics and learning rate over the steps of a training run.

    Args:
        lines: records with `step` and any of `loss`, `accuracy`, `learning_rate`, `validation.<name>`, `base.<name>`;
            the base's metrics are dotted lines.
    """
    names = sorted({name for line in lines for name in line if name.startswith("validation.")})
    losses = [name for name in names if name.endswith("loss")]
    figure, axes = _figure(1, 3, 11, 3.1)
    _smoothed(axes[0], "loss", *_series(lines, "loss"))
    _smoothed(axes[1], "accuracy in the batch", *_series(lines, "accuracy"))
    for axis, shown in ((axes[0], losses), (axes[1], [name for name in names if name not in losses])):
        for name in shown:
            axis.plot(*_series(lines, name), "o-", ms=3, lw=1.4, label=name)
    for line in lines:
        for name in (name for name in line if name.startswith("base.")):
            axes[1].axhline(line[name], color=GREY, lw=1.2, ls=":", label=name)
    for axis in axes[:2]:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7, frameon=False)
    axes[2].plot(*_series(lines, "learning_rate"), color=INK, lw=1.2)
    for axis, title in zip(axes, ("loss", "accuracy and validation", "learning rate"), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
    return _png(figure)


def histogram_plot(samples: Mapping[str, PairSample], thresholds: Mapping[str, float], kind: str) -> bytes:
    """Plot the cosines of positive and negative test pairs, one panel for each encoder, with the threshold.

    Args:
        samples: encoder's title -> its test pairs.
        thresholds: encoder's title -> cosine distance.
        kind: of the pairs, for the axis.
    """
    figure, axes = _figure(1, len(samples), 5.5 * len(samples), 3.1)
    for axis, (title, sample) in zip(axes, samples.items(), strict=True):
        low, high = min(-0.1, float(sample.cosines.min())), 1.0
        bins = np.linspace(low, high, 61)
        for same, colour, name in ((False, ORANGE, "negative pairs"), (True, BLUE, "positive pairs")):
            axis.hist(sample.cosines[sample.same == same], bins=bins, density=True, color=colour, alpha=0.6, label=name)
        cut = 1 - thresholds[title]
        axis.axvline(cut, color=INK, lw=1.2, ls="--", label=f"threshold: cosine {cut:.3f}")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(f"cosine of {kind}", fontsize=8)
        axis.set_yticks([])
        axis.legend(fontsize=7, frameon=False)
    return _png(figure)


def heat_map_plot(vectors: Mapping[str, Float32], images: Sequence[UInt8]) -> bytes:
    """Plot pairwise cosines of a few images, shown along both axes; one panel for each encoder.

    Args:
        vectors: encoder's title -> (n, d) of unit norm.
        images: n small RGB images (h, w, 3).
    """
    figure, axes = _figure(1, len(vectors), 5.6 * len(vectors), 5.4)
    count = len(images)
    for axis, (title, rows) in zip(axes, vectors.items(), strict=True):
        cosines = rows @ rows.T
        heat_map = axis.imshow(cosines, vmin=0, vmax=1, cmap="viridis")
        for i, image in enumerate(images):
            _thumbnail(axis, image, (i, count - 0.5), 17, offset=(0, -11))
            _thumbnail(axis, image, (-0.5, i), 17, offset=(-11, 0))
            for j in range(count):
                colour = "white" if cosines[i, j] < 0.6 else "black"
                axis.text(
                    j, i, f"{cosines[i, j]:.1f}".replace("0.", "."), ha="center", va="center", fontsize=5.5, c=colour
                )
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        figure.colorbar(heat_map, ax=axis, fraction=0.04, pad=0.02).ax.tick_params(labelsize=7)
    return _png(figure)


def map_plot(points: Float64, labels: Sequence[str | None], images: Mapping[int, UInt8], title: str) -> bytes:
    """Plot projected embeddings, coloured by class, some of them as images.

    Args:
        points: (n, 2).
        labels: n class names; the most frequent have a colour each, the others are grey.
        images: position -> small RGB image.
        title: of the plot.
    """
    figure, axes = _figure(1, 1, 8.6, 6.2)
    axis = axes[0]
    frames: dict[int, Any] = {}
    for name, colour, rows in _colours(labels):
        frames |= dict.fromkeys(rows, colour)
        axis.scatter(*points[rows].T, s=9, color=colour, alpha=0.75, linewidths=0, label=name)
    for i, image in images.items():
        _thumbnail(axis, image, (float(points[i, 0]), float(points[i, 1])), 20, frame=frames[i])
    axis.set_title(title, fontsize=10)
    axis.set_xticks([])
    axis.set_yticks([])
    if any(label is not None for label in labels):
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False, markerscale=2)
    return _png(figure)


def reliability_plot(probabilities: Mapping[str, Float64], same: Mapping[str, Any], bins: int = 10) -> bytes:
    """Plot the share of positive pairs against the predicted probability, for each kind of pair."""
    figure, axes = _figure(1, 1, 4.2, 3.6)
    axes[0].plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    for (kind, predicted), colour in zip(probabilities.items(), (BLUE, ORANGE), strict=False):
        bin_of = np.minimum((predicted * bins).astype(int), bins - 1)
        counts = np.bincount(bin_of, minlength=bins)
        filled = counts > 0
        means = [np.bincount(bin_of, weights=values, minlength=bins)[filled] for values in (predicted, same[kind])]
        axes[0].plot(means[0] / counts[filled], means[1] / counts[filled], "o-", ms=4, color=colour, label=kind)
    axes[0].set_xlabel("predicted probability", fontsize=8)
    axes[0].set_ylabel("share of positive pairs", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return _png(figure)


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    figure = import_extra("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)[0]
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    known = [line for line in lines if isinstance(line.get(name), int | float)]
    return [line["step"] for line in known], [line[name] for line in known]


def _smoothed(axis: Any, name: str, steps: list[float], values: list[float]) -> None:
    axis.plot(steps, values, color=GREY, lw=0.6, alpha=0.8, label=f"{name}, each step" if values else None)
    width = max(1, len(values) // _SMOOTHING_WINDOWS)
    if width > 1:
        mean = np.convolve(values, np.full(width, 1 / width), "valid")
        axis.plot(steps[width - 1 :], mean, color=BLUE, lw=1.6, label=f"{name}, mean of {width} steps")


def _thumbnail(
    axis: Any,
    image: UInt8,
    at: tuple[float, float],
    points: float,
    offset: tuple[float, float] = (0, 0),
    frame: Any = None,
) -> None:
    """Draw an image, its longer side `points` long, at a position in data coordinates, framed in a colour or not."""
    boxes = import_extra("matplotlib.offsetbox")
    box = boxes.AnnotationBbox(
        boxes.OffsetImage(image, zoom=points / max(image.shape[:2])),
        at,
        xybox=offset,
        boxcoords="offset points",
        frameon=frame is not None,
        pad=0,
        bboxprops={"edgecolor": frame, "linewidth": 1.6},
        annotation_clip=False,
    )
    axis.add_artist(box)


def _colours(labels: Sequence[str | None]) -> list[tuple[str, Any, list[int]]]:
    """Return (name, colour, positions) of the most frequent classes, and the rest in grey before them."""
    groups: dict[str | None, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(label, []).append(i)
    named = sorted((name for name in groups if name is not None), key=lambda name: (-len(groups[name]), name))
    palette = import_extra("matplotlib").colormaps["tab10" if len(named) <= 10 else "tab20"].colors
    shown = sorted(named[:_MAX_COLOURS])
    rest = [i for name, rows in groups.items() if name not in shown for i in rows]
    grey = [("other classes" if named else "", GREY, sorted(rest))] if rest else []
    return grey + [(name, colour, groups[name]) for name, colour in zip(shown, palette, strict=False)]
