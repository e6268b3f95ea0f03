"""Sections of a report with plots and images: each is a title, a caption on how to read it, and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from evaluation.calibrate import probabilities_of
from evaluation.classes import encode_labels
from evaluation.datasets import Example
from evaluation.embedded_set import EmbeddedSet
from evaluation.evaluate import Evaluation
from evaluation.mistakes import Mistake, worst_mistakes
from evaluation.plots import curves_plot, heat_map_plot, histogram_plot, map_plot, reliability_plot
from evaluation.projection import MIN_PROJECTED, t_sne, umap
from evaluation.thumbnails import ReportThumbnails, data_url
from lookalike.types import Int64

MAX_HEAT_MAP_IMAGES = 16
MAX_PROJECTED = 1500
MAX_MAP_IMAGES = 48
MAX_MISTAKES = 10
MAX_SHOWN_ITEMS = 7
KINDS = {"image_image": "two images", "image_text": "an image and a text"}


@dataclass(frozen=True, slots=True)
class Illustration:
    """One section of the page; `html` is trusted, title and caption are not."""

    title: str
    caption: str
    html: str


def illustrate(
    result: Evaluation,
    baseline: Evaluation | None,
    curves: Sequence[Mapping[str, Any]],
    thumbnails: ReportThumbnails,
    seed: int,
) -> list[Illustration]:
    """Return the sections for which the evaluation has data.

    Raises:
        ExtraMissing: matplotlib, scikit-learn or umap-learn is not installed.
    """
    evaluations = _by_title(result, baseline)
    sections = [_curves(curves)] if curves else []
    sections += [_histogram(evaluations, kind) for kind in result.pairs]
    if result.pairs:
        sections.append(_reliability(result))
    sections.append(_heat_map(evaluations, thumbnails, seed))
    if len(result.data.examples) >= MIN_PROJECTED:
        sections += _maps(result.data, thumbnails, seed)
    return sections + _label_mistakes(result, thumbnails) + _caption_mistakes(result, thumbnails)


def _by_title(result: Evaluation, baseline: Evaluation | None) -> dict[str, Evaluation]:
    """Return evaluations by title, the baseline first; titles differ even if an encoder is compared with itself."""
    name = str(result.metrics["encoder"]["name"])
    if baseline is None:
        return {name: result}
    return {f"before: {baseline.metrics['encoder']['name']}": baseline, f"after: {name}": result}


def _curves(lines: Sequence[Mapping[str, Any]]) -> Illustration:
    return Illustration(
        "Training",
        "Loss of each step, and metrics on validation data.",
        _plot(curves_plot(lines), "loss, accuracy and learning rate over the steps"),
    )


def _histogram(evaluations: Mapping[str, Evaluation], kind: str) -> Illustration:
    pairs = {title: each.pairs[kind] for title, each in evaluations.items() if kind in each.pairs}
    thresholds = {title: each.calibration.threshold for title, each in pairs.items()}
    return Illustration(
        f"Cosines of {KINDS[kind]}",
        "Positive and negative test pairs. The less the two overlap, the more reliable the decision. The threshold was "
        "chosen on other images.",
        _plot(
            histogram_plot({title: each.test for title, each in pairs.items()}, thresholds, KINDS[kind]),
            "histograms of the cosines of pairs",
        ),
    )


def _reliability(result: Evaluation) -> Illustration:
    predicted = {
        KINDS[kind]: probabilities_of(each.calibration, each.test.cosines) for kind, each in result.pairs.items()
    }
    truth = {KINDS[kind]: each.test.same for kind, each in result.pairs.items()}
    caption = "The share of positive test pairs at each predicted probability; the diagonal is perfect calibration."
    return Illustration(
        "Probabilities", caption, _plot(reliability_plot(predicted, truth), "predicted probability against the truth")
    )


def _heat_map(evaluations: Mapping[str, Evaluation], thumbnails: ReportThumbnails, seed: int) -> Illustration:
    common = _common_positions(list(evaluations.values()))
    first = next(iter(evaluations.values())).data
    sample = [common[i] for i in _sample([first.examples[rows[0]].label for rows in common], MAX_HEAT_MAP_IMAGES, seed)]
    vectors = {
        title: each.data.vectors[[rows[i] for rows in sample]] for i, (title, each) in enumerate(evaluations.items())
    }
    images = [thumbnails.pixels(first.examples[rows[0]]) for rows in sample]
    caption = "Cosine of each pair of images. Images of a class are side by side: separated classes are bright squares."
    return Illustration(
        "Cosines of sample images", caption, _plot(heat_map_plot(vectors, images), "heat map of cosines")
    )


def _maps(data: EmbeddedSet, thumbnails: ReportThumbnails, seed: int) -> list[Illustration]:
    rows = np.linspace(0, len(data.examples) - 1, min(MAX_PROJECTED, len(data.examples))).round().astype(int)
    vectors, labels = data.vectors[rows], [data.examples[i].label for i in rows]
    shown = _sample(labels, MAX_MAP_IMAGES, seed)
    images = {i: thumbnails.pixels(data.examples[rows[i]]) for i in shown}
    caption = (
        f"{len(rows):,} embeddings in the plane{', coloured by class' if data.classes else ''}. "
        "Near points are similar; distances between far groups mean little."
    )
    maps = (("t-SNE", t_sne), ("UMAP", umap))
    return [
        Illustration(
            name,
            caption,
            _plot(map_plot(project(vectors, seed), labels, images, f"{name} of {len(rows):,} images"), name),
        )
        for name, project in maps
    ]


def _label_mistakes(result: Evaluation, thumbnails: ReportThumbnails) -> list[Illustration]:
    if "labels" not in result.metrics:
        return []
    gallery = result.data if result.gallery is None else result.gallery
    names = sorted({*result.data.classes, *gallery.classes})
    mistakes = worst_mistakes(
        result.data.vectors,
        encode_labels((example.label for example in result.data.examples), names),
        None if result.gallery is None else gallery.vectors,
        encode_labels((example.label for example in gallery.examples), names),
        count=MAX_MISTAKES,
        shown=MAX_SHOWN_ITEMS,
    )
    html = "".join(_image_row(mistake, result.data, gallery, thumbnails) for mistake in mistakes)
    caption = (
        "The query (dark frame), its nearest images with their cosines (green: of its class, red: of another), and "
        "last the nearest image of its class. The largest errors come first, one of each pair of classes."
    )
    return [Illustration("Worst retrieval errors", caption, html or "<p>None: every query finds its class first.</p>")]


def _image_row(mistake: Mistake, data: EmbeddedSet, gallery: EmbeddedSet, thumbnails: ReportThumbnails) -> str:
    query = data.examples[mistake.query]
    cells = [_image(query, "query", query.label or "", thumbnails)]
    for item, cosine, relevant in zip(mistake.items, mistake.cosines, mistake.relevant, strict=True):
        example = gallery.examples[item]
        cells.append(
            _image(example, "right" if relevant else "wrong", f"{example.label or 'no label'} {cosine:.3f}", thumbnails)
        )
    best = gallery.examples[mistake.best]
    cells.append("<span>…</span>" + _image(best, "right", f"{mistake.margin:.3f} behind", thumbnails))
    return f'<div class="row">{"".join(cells)}</div>'


def _caption_mistakes(result: Evaluation, thumbnails: ReportThumbnails) -> list[Illustration]:
    if "captions" not in result.metrics:
        return []
    data = result.data
    images = data.vectors[data.captioned]
    mistakes = worst_mistakes(
        data.caption_vectors, data.owners, images, np.arange(len(images)), count=MAX_MISTAKES, shown=MAX_SHOWN_ITEMS - 1
    )
    texts = [text for i in data.captioned for text in data.examples[i].captions]
    html = "".join(_text_row(mistake, texts[mistake.query], data, thumbnails) for mistake in mistakes)
    caption = "A caption, its image (dark frame), and the images that are nearer."
    return [Illustration("Worst errors of captions", caption, html or "<p>None.</p>")]


def _text_row(mistake: Mistake, text: str, data: EmbeddedSet, thumbnails: ReportThumbnails) -> str:
    own = data.examples[data.captioned[mistake.best]]
    cells = [
        f'<div class="said">{escape(text)}</div>',
        _image(own, "query", f"{mistake.margin:.3f} behind", thumbnails),
    ]
    for item, cosine, relevant in zip(mistake.items, mistake.cosines, mistake.relevant, strict=True):
        example = data.examples[data.captioned[item]]
        cells.append(_image(example, "right" if relevant else "wrong", f"{cosine:.3f}", thumbnails))
    return f'<div class="row">{"".join(cells)}</div>'


def _image(example: Example, role: str, label: str, thumbnails: ReportThumbnails) -> str:
    image = f'<img src="{thumbnails.url(example)}" alt="{escape(example.key)}" title="{escape(example.key)}">'
    return f'<figure class="{role}">{image}{escape(label)}</figure>'


def _plot(png: bytes, shows: str) -> str:
    return f'<img class="plot" src="{data_url(png, "image/png")}" alt="{escape(shows)}">'


def _common_positions(evaluations: Sequence[Evaluation]) -> list[tuple[int, ...]]:
    """Return the positions in each evaluation of the examples that all of them hold, in the order of the first."""
    positions = [{example.load: i for i, example in enumerate(each.data.examples)} for each in evaluations]
    return [tuple(rows[load] for rows in positions) for load in positions[0] if all(load in rows for rows in positions)]


def _sample(labels: Sequence[str | None], count: int, seed: int) -> list[int]:
    """Draw at most `count` positions, balanced over the classes, those of one class side by side."""
    rng = np.random.default_rng([seed, 4])
    order: Int64 = rng.permutation(len(labels))
    counts: dict[str | None, int] = {}
    ranks = []  # within the class
    for i in order:
        label = labels[i]
        counts[label] = counts.get(label, 0) + 1
        ranks.append(counts[label])
    # Few enough classes for two images of each, so that they can be compared.
    classes = sorted(counts, key=lambda name: (-counts[name], str(name)))[: max(1, count // 2)]
    candidates = [(rank, int(i)) for rank, i in zip(ranks, order, strict=True) if labels[i] in classes]
    chosen = [i for _, i in sorted(candidates)[:count]]
    return sorted(chosen, key=lambda i: (str(labels[i]), i))
