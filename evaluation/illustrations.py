"""What a report shows besides its table: each section is a title, a sentence on how to read it, and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from evaluation.calibrate import probabilities_of
from evaluation.classes import encode_labels
from evaluation.datasets import Example
from evaluation.embedded import EmbeddedSet
from evaluation.evaluate import Evaluation
from evaluation.gallery import Thumbnails, data_url
from evaluation.mistakes import Mistake, worst_mistakes
from evaluation.plots import curves_plot, heat_map_plot, histogram_plot, map_plot, reliability_plot
from evaluation.projection import FEWEST, t_sne, umap
from lookalike.types import Int64

SAMPLED = 16
MAPPED = 1500
MAP_PICTURES = 48
MISTAKES = 10
SHOWN = 7
KINDS = {"image_image": "two images", "image_text": "an image and a text"}


@dataclass(frozen=True, slots=True)
class Illustration:
    """One section of the page; `html` is trusted, title and caption are not."""

    title: str
    caption: str
    html: str


def illustrate(
    found: Evaluation,
    baseline: Evaluation | None,
    curves: Sequence[Mapping[str, Any]],
    thumbnails: Thumbnails,
    seed: int,
) -> list[Illustration]:
    """All sections that the evaluation has something to show in.

    Raises:
        ExtraMissing: matplotlib, scikit-learn or umap-learn is not installed.
    """
    both = _titled(found, baseline)
    sections = [_curves(curves)] if curves else []
    sections += [_histogram(both, kind) for kind in found.pairs]
    if found.pairs:
        sections.append(_reliability(found))
    sections.append(_heat_map(both, thumbnails, seed))
    if len(found.data.examples) >= FEWEST:
        sections += _maps(found.data, thumbnails, seed)
    return sections + _label_mistakes(found, thumbnails) + _caption_mistakes(found, thumbnails)


def _titled(found: Evaluation, baseline: Evaluation | None) -> dict[str, Evaluation]:
    """Before, then after; titles differ even where an encoder is compared with itself."""
    name = str(found.figures["encoder"]["name"])
    if baseline is None:
        return {name: found}
    return {f"before: {baseline.figures['encoder']['name']}": baseline, f"after: {name}": found}


def _curves(lines: Sequence[Mapping[str, Any]]) -> Illustration:
    return Illustration(
        "Training",
        "Loss of each step, and what was measured on validation data.",
        _plot(curves_plot(lines), "loss, accuracy and learning rate over the steps"),
    )


def _histogram(both: Mapping[str, Evaluation], kind: str) -> Illustration:
    pairs = {title: each.pairs[kind] for title, each in both.items() if kind in each.pairs}
    thresholds = {title: each.calibration.threshold for title, each in pairs.items()}
    return Illustration(
        f"Cosines of {KINDS[kind]}",
        "Test pairs that belong together and that do not. The less the two overlap, the surer the decision; the "
        "threshold was chosen on other images.",
        _plot(
            histogram_plot({title: each.test for title, each in pairs.items()}, thresholds, KINDS[kind]),
            "histograms of the cosines of pairs",
        ),
    )


def _reliability(found: Evaluation) -> Illustration:
    stated = {KINDS[kind]: probabilities_of(each.calibration, each.test.cosines) for kind, each in found.pairs.items()}
    truth = {KINDS[kind]: each.test.same for kind, each in found.pairs.items()}
    caption = "Of the test pairs given a probability, the share that does belong together; the diagonal is honest."
    return Illustration(
        "Probabilities", caption, _plot(reliability_plot(stated, truth), "stated probability against truth")
    )


def _heat_map(both: Mapping[str, Evaluation], thumbnails: Thumbnails, seed: int) -> Illustration:
    keys = _readable_by_all(list(both.values()))
    first = next(iter(both.values())).data
    chosen = [keys[i] for i in _sample([first.examples[place[0]].label for place in keys], SAMPLED, seed)]
    vectors = {title: each.data.vectors[[place[i] for place in chosen]] for i, (title, each) in enumerate(both.items())}
    images = [thumbnails.pixels(first.examples[place[0]]) for place in chosen]
    caption = (
        "Cosine of each image to each other. Images of a class stand together, so good classes are bright squares."
    )
    return Illustration(
        "Cosines of sample images", caption, _plot(heat_map_plot(vectors, images), "heat map of cosines")
    )


def _maps(data: EmbeddedSet, thumbnails: Thumbnails, seed: int) -> list[Illustration]:
    rows = np.linspace(0, len(data.examples) - 1, min(MAPPED, len(data.examples))).round().astype(int)
    vectors, labels = data.vectors[rows], [data.examples[i].label for i in rows]
    shown = _sample(labels, MAP_PICTURES, seed)
    images = {i: thumbnails.pixels(data.examples[rows[i]]) for i in shown}
    caption = (
        f"{len(rows):,} embeddings in the plane{', coloured by class' if data.classes else ''}. "
        "What lies near each other is alike; distances between far groups mean little."
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


def _label_mistakes(found: Evaluation, thumbnails: Thumbnails) -> list[Illustration]:
    if "labels" not in found.figures:
        return []
    gallery = found.data if found.gallery is None else found.gallery
    names = sorted({*found.data.classes, *gallery.classes})
    mistakes = worst_mistakes(
        found.data.vectors,
        encode_labels((example.label for example in found.data.examples), names),
        None if found.gallery is None else gallery.vectors,
        encode_labels((example.label for example in gallery.examples), names),
        count=MISTAKES,
        shown=SHOWN,
    )
    html = "".join(_image_row(mistake, found.data, gallery, thumbnails) for mistake in mistakes)
    caption = (
        "The query (dark frame), its nearest images with their cosines (green: of its class, red: of another), and "
        "last the nearest image of its class. Those that are wrong by most come first, one of each confusion."
    )
    return [Illustration("Worst retrieval errors", caption, html or "<p>None: every query finds its class first.</p>")]


def _image_row(mistake: Mistake, data: EmbeddedSet, gallery: EmbeddedSet, thumbnails: Thumbnails) -> str:
    query = data.examples[mistake.query]
    cells = [_image(query, "query", query.label or "", thumbnails)]
    for item, cosine, right in zip(mistake.items, mistake.cosines, mistake.right, strict=True):
        example = gallery.examples[item]
        cells.append(
            _image(example, "right" if right else "wrong", f"{example.label or 'no label'} {cosine:.3f}", thumbnails)
        )
    best = gallery.examples[mistake.best]
    cells.append("<span>…</span>" + _image(best, "right", f"{mistake.margin:.3f} behind", thumbnails))
    return f'<div class="row">{"".join(cells)}</div>'


def _caption_mistakes(found: Evaluation, thumbnails: Thumbnails) -> list[Illustration]:
    if "captions" not in found.figures:
        return []
    data = found.data
    images = data.vectors[data.captioned]
    mistakes = worst_mistakes(
        data.caption_vectors, data.owners, images, np.arange(len(images)), count=MISTAKES, shown=SHOWN - 1
    )
    texts = [text for i in data.captioned for text in data.examples[i].captions]
    html = "".join(_text_row(mistake, texts[mistake.query], data, thumbnails) for mistake in mistakes)
    caption = "A caption, its own image (dark frame), and the images that it finds instead."
    return [Illustration("Worst errors of captions", caption, html or "<p>None.</p>")]


def _text_row(mistake: Mistake, text: str, data: EmbeddedSet, thumbnails: Thumbnails) -> str:
    own = data.examples[data.captioned[mistake.best]]
    cells = [
        f'<div class="said">{escape(text)}</div>',
        _image(own, "query", f"{mistake.margin:.3f} behind", thumbnails),
    ]
    for item, cosine, right in zip(mistake.items, mistake.cosines, mistake.right, strict=True):
        example = data.examples[data.captioned[item]]
        cells.append(_image(example, "right" if right else "wrong", f"{cosine:.3f}", thumbnails))
    return f'<div class="row">{"".join(cells)}</div>'


def _image(example: Example, role: str, said: str, thumbnails: Thumbnails) -> str:
    image = f'<img src="{thumbnails.url(example)}" alt="{escape(example.key)}" title="{escape(example.key)}">'
    return f'<figure class="{role}">{image}{escape(said)}</figure>'


def _plot(png: bytes, shows: str) -> str:
    return f'<img class="plot" src="{data_url(png, "image/png")}" alt="{escape(shows)}">'


def _readable_by_all(evaluations: Sequence[Evaluation]) -> list[tuple[int, ...]]:
    """Positions, one for each evaluation, of the examples that all of them hold, in the order of the first."""
    places = [{example.load: i for i, example in enumerate(each.data.examples)} for each in evaluations]
    return [tuple(place[load] for place in places) for load in places[0] if all(load in place for place in places)]


def _sample(labels: Sequence[str | None], count: int, seed: int) -> list[int]:
    """At most `count` positions, as evenly over the classes as goes, neighbours of one class side by side."""
    rng = np.random.default_rng([seed, 4])
    order: Int64 = rng.permutation(len(labels))
    taken: dict[str | None, int] = {}
    turns = []
    for i in order:
        label = labels[i]
        taken[label] = taken.get(label, 0) + 1
        turns.append(taken[label])
    # At least two of a class, so that there is something to compare: whole pairs of turns are taken together.
    classes = sorted(taken, key=lambda name: (-taken[name], str(name)))[: max(1, count // 2)]
    kept = [(turn, int(i)) for turn, i in zip(turns, order, strict=True) if labels[i] in classes]
    chosen = [i for _, i in sorted(kept)[:count]]
    return sorted(chosen, key=lambda i: (str(labels[i]), i))
