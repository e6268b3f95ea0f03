"""`python -m benchmarks.sketch`: what a search by drawing finds, with and without a text.

Thirty scripted drawings (benchmarks/drawings.py) are rendered by the page's own strokes.js in headless Chromium,
encoded, and searched exactly among the broad set, Flickr8k's validation images and CIFAR-10's test images
(LOOKALIKE_TEST_DATA). Hit rate at 10: the share of drawings with a relevant image among the first ten. P@10 is divided
by min(10, number of relevant images).
"""

from __future__ import annotations

import argparse
import base64
import io
import math
import os
import re
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Page, Route, sync_playwright

from benchmarks.combining import embedded
from benchmarks.drawings import DRAWINGS, Stroke
from benchmarks.encoders import machine
from evaluation.datasets import Example, read_examples
from evaluation.embedding import embed_images, embed_texts
from evaluation.intervals import bootstrap_counts, percentile_interval
from evaluation.ranking import best_ranks, hit_rate_at_k, precision_at_k
from lookalike.encoders.engines import EngineOptions
from lookalike.encoders.protocol import Encoder
from lookalike.encoders.registry import load_encoder
from lookalike.types import Bool, Float32

K = 10
WEIGHTS = (0.5, 1.0, 1.41, 2.0, 2.8)
PAGE_WEIGHT = 2.0
"""Of the text, the drawing's is 1; as the page has them by default."""
SOURCES = ("broad/train.tar", "broad/val.tar", "flickr8k/val.tar")
CIFAR = "cifar10-test.parquet"
UNSEEN = "val/"
"""Prefix of the keys that the heads of `lite` were not trained on."""
DRAWN = ("emoji3d", "pacs", "flags", "flashcard_clipart", "carlogos", "vega", "doc_screens", "famous_art")
"""Sources of the broad set that hold no photographs."""
NEVER = r"\b(logo|aerial|satellite|scatterplot|plot|chart)\b"
"""Words of captions of images that are no hit: a car's logo, a harbour from above."""
WEB = Path(__file__).resolve().parents[1] / "app" / "web"
_ORIGIN = "http://sketch.invalid"
_RENDER = """async ([drawings, side, ground]) => {
  const { encode, toBlob } = await import("/strokes.js");
  return Promise.all(drawings.map(async (strokes) => {
    const text = encode(strokes);
    const bytes = new Uint8Array(await (await toBlob(text, side, ground)).arrayBuffer());
    return [text.length, btoa(bytes.reduce((binary, byte) => binary + String.fromCharCode(byte), ""))];
  }));
}"""


# Variants of the rendering


@dataclass(frozen=True)
class Variant:
    """A way to draw or to render; the default is the page's."""

    name: str
    change: Callable[[list[Stroke]], list[Stroke]] = lambda strokes: strokes
    side: int = 336
    ground: str = "#e8e8e8"
    blur: float = 0.0


def outline(strokes: list[Stroke]) -> list[Stroke]:
    """Draw shapes without filling them."""
    return [{**stroke, "fill": False} for stroke in strokes]


def black(strokes: list[Stroke]) -> list[Stroke]:
    """Draw shapes without filling them, in black."""
    return [{**stroke, "fill": False, "color": "#1a1a1a"} for stroke in strokes]


def brushed(width: float, step: float) -> Callable[[list[Stroke]], list[Stroke]]:
    """Return a change that fills shapes by an outline and a zigzag of a brush, in rows at a distance of `step`."""

    def parts(stroke: Stroke) -> list[Stroke]:
        return [{**stroke, "fill": False}, _zigzag(stroke, width, step)] if stroke["fill"] else [stroke]

    return lambda strokes: [part for stroke in strokes for part in parts(stroke)]


def _zigzag(stroke: Stroke, width: float, step: float) -> Stroke:
    points = stroke["points"]
    low, high = min(y for _, y in points), max(y for _, y in points)
    width = min(width, high - low)
    rows = np.linspace(low + width / 2, high - width / 2, max(1, round((high - low - width) / step) + 1))
    path: list[tuple[float, float]] = []
    for i, y in enumerate(rows.tolist()):
        if across := _crossings(points, y):
            ends = [(min(across) + width / 2, y), (max(across) - width / 2, y)]
            path += ends if i % 2 == 0 else ends[::-1]
    return {**stroke, "fill": False, "width": width, "points": path or points}


def _crossings(points: list[tuple[float, float]], y: float) -> list[float]:
    edges = pairwise(points)
    return [ax + (bx - ax) * (y - ay) / (by - ay) for (ax, ay), (bx, by) in edges if (ay <= y) != (by <= y)]


def thickened(factor: float) -> Callable[[list[Stroke]], list[Stroke]]:
    """Return a change that multiplies the pens' widths."""
    return lambda strokes: [{**stroke, "width": stroke["width"] * factor} for stroke in strokes]


def scaled(fill: float) -> Callable[[list[Stroke]], list[Stroke]]:
    """Return a change that centres a drawing and scales its longer side to a share of the canvas."""

    def change(strokes: list[Stroke]) -> list[Stroke]:
        xs, ys = ([p[axis] for stroke in strokes for p in stroke["points"]] for axis in (0, 1))
        x, y, side = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(max(xs) - min(xs), max(ys) - min(ys))
        if side > 0.95 and fill > 0.6:
            return strokes  # a scene covers the canvas as it is
        by = fill / side
        return [
            {
                **s,
                "width": s["width"] * by,
                "points": [((a - x) * by + 0.5, (b - y) * by + 0.5) for a, b in s["points"]],
            }
            for s in strokes
        ]

    return change


VARIANTS = (
    Variant("as the page: filled, light grey ground, 336 pixels"),
    Variant("outlines in colour", outline),
    Variant("outlines in black", black),
    Variant("outlines in black, half as wide", lambda strokes: thickened(0.5)(black(strokes))),
    Variant("outlines in black, twice as wide", lambda strokes: thickened(2)(black(strokes))),
    Variant("filled by a wide brush", brushed(0.1, 0.06)),
    Variant("filled by a brush, with gaps", brushed(0.06, 0.07)),
    Variant("lines half as wide", thickened(0.5)),
    Variant("lines twice as wide", thickened(2)),
    Variant("cropped to the drawing", scaled(0.9)),
    Variant("half the size, in a margin", scaled(0.5)),
    Variant("white ground", ground="#ffffff"),
    Variant("grey ground", ground="#a0a0a0"),
    Variant("224 pixels", side=224),
    Variant("blurred by 2 pixels", blur=2),
    Variant("blurred by 8 pixels", blur=8),
)


def render(page: Page, variant: Variant) -> list[tuple[int, bytes]]:
    """Return the length of each drawing's text, and its PNG as the page sends it."""
    drawings = [variant.change(drawing.strokes()) for drawing in DRAWINGS]
    rendered = page.evaluate(_RENDER, [drawings, variant.side, variant.ground])
    return [(length, _blurred(base64.b64decode(data), variant.blur)) for length, data in rendered]


def _blurred(data: bytes, radius: float) -> bytes:
    if not radius:
        return data
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").filter(ImageFilter.GaussianBlur(radius)).save(out, "PNG")
    return out.getvalue()


def rendered_variants() -> dict[str, list[tuple[int, bytes]]]:
    """Render all drawings in all variants by Chromium."""
    executable = os.environ.get("LOOKALIKE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.route("**/*", _fulfill)
        page.goto(f"{_ORIGIN}/")
        found = {variant.name: render(page, variant) for variant in VARIANTS}
        browser.close()
    return found


def _fulfill(route: Route) -> None:
    if route.request.url.endswith("/strokes.js"):
        route.fulfill(body=(WEB / "sketch" / "strokes.js").read_text(), content_type="text/javascript")
    else:
        route.fulfill(body="<!doctype html>", content_type="text/html")


# Gallery


@dataclass(frozen=True)
class Gallery:
    """Images to search.

    Attributes:
        name: shown in the report.
        vectors: (n, d).
        relevant: (drawings, n).
    """

    name: str
    vectors: Float32
    relevant: Bool

    def part(self, name: str, rows: Bool) -> Gallery:
        """Return the gallery of some rows."""
        return Gallery(name, self.vectors[rows], self.relevant[:, rows])


def relevance(examples: Sequence[Example]) -> Bool:
    """Return which images each drawing should find, (drawings, n)."""
    never = [re.search(NEVER, " ".join(example.captions).lower()) is not None for example in examples]
    return np.array(
        [
            [not no and d.relevant(example.captions) for no, example in zip(never, examples, strict=True)]
            for d in DRAWINGS
        ]
    )


def galleries(folder: Path, encoder: Encoder, cache: Path | None) -> tuple[list[Example], list[Gallery]]:
    """Return the images, and the galleries that are made of them."""
    examples = read_examples([str(folder / path) for path in SOURCES])
    keys = [example.key for example in examples]
    vectors = embedded(
        cache, "gallery", [encoder.spec.name, *keys], lambda: embed_images(encoder, [e.load for e in examples])[0]
    )
    cifar = read_examples([str(folder / CIFAR)])
    cifar_vectors = embedded(
        cache,
        "cifar",
        [encoder.spec.name, *(e.key for e in cifar)],
        lambda: embed_images(encoder, [e.load for e in cifar])[0],
    )
    classes = np.array([[bool(d.cifar) and e.label == d.cifar for e in cifar] for d in DRAWINGS])
    everything = Gallery("all", vectors, relevance(examples))
    drawn = np.array([key.split("/", 1)[-1].startswith(DRAWN) for key in keys])
    unseen = np.array([key.startswith(UNSEEN) for key in keys])
    return examples, [
        everything,
        everything.part("photographs", ~drawn),
        everything.part("unseen by training", unseen),
        Gallery("CIFAR-10", cifar_vectors, classes),
    ]


# Measures


@dataclass(frozen=True)
class Result:
    """What some query vectors find in a gallery; a drawing without relevant images is left out.

    Attributes:
        ranks: of the best relevant image, one for each drawing that has any.
        precision: P@10 of the same drawings.
    """

    ranks: dict[str, int]
    precision: dict[str, float]

    @property
    def hit_rate(self) -> float:
        """Hit rate at 10."""
        return hit_rate_at_k(np.array(list(self.ranks.values())), K)

    @property
    def mean_precision(self) -> float:
        """Mean P@10."""
        return statistics.fmean(self.precision.values())


def search(queries: Float32, gallery: Gallery) -> Result:
    """Search (drawings, d) queries exactly."""
    some: Bool = np.any(gallery.relevant, axis=1)
    scores, relevant = (queries @ gallery.vectors.T)[some], gallery.relevant[some]
    names = [drawing.name for drawing, has in zip(DRAWINGS, some, strict=True) if has]
    ranks, precision = best_ranks(scores, relevant), precision_at_k(scores, relevant, K)
    return Result(dict(zip(names, ranks.tolist(), strict=True)), dict(zip(names, precision.tolist(), strict=True)))


def random_hit_rate(gallery: Gallery) -> float:
    """Return the expected hit rate at 10 of a random order."""
    size, counts = gallery.relevant.shape[1], gallery.relevant.sum(axis=1)
    return statistics.fmean(1 - math.comb(size - int(c), K) / math.comb(size, K) for c in counts if c)


def _random_precision(gallery: Gallery) -> float:
    some = gallery.relevant[gallery.relevant.any(axis=1)]
    return float(np.mean(K * some.mean(axis=1) / np.minimum(K, some.sum(axis=1))))


def interval(result: Result) -> tuple[float, float]:
    """Return the 95 % interval of the hit rate, resampling the drawings."""
    hits = np.array(list(result.ranks.values())) <= K
    return percentile_interval([float((c @ hits) / c.sum()) for c in bootstrap_counts(len(hits), 1_000, 0)])


# Report


def report(sketches: dict[str, Float32], texts: Float32, found: list[Gallery], lengths: list[int]) -> str:
    """Return Markdown: variants, combinations with a text, and each drawing."""
    drawn = next(iter(sketches.values()))
    median = f"{statistics.median(lengths):,.0f}"
    parts = [
        f"Texts of the drawings: median {median} characters, longest {max(lengths):,}.",
        _table("queries", found, {"a random order": None, **_queries(drawn, texts)}),
        _table("rendering", found, dict(sketches)),
        _drawings(drawn, texts, found),
        _classes(drawn, found[-1]),
    ]
    return "\n\n".join(parts)


def _queries(drawn: Float32, texts: Float32) -> dict[str, Float32 | None]:
    both = {f"drawing + {weight:g} x text": drawn + np.float32(weight) * texts for weight in WEIGHTS}
    return {"drawing": drawn, "text": texts, **both}


def _table(title: str, found: list[Gallery], rows: dict[str, Float32 | None]) -> str:
    sizes = [f"{g.name} ({g.vectors.shape[0]:,} images, {int(g.relevant.any(axis=1).sum())} drawings)" for g in found]
    lines = [
        f"| {title} | " + " | ".join(f"{size}: hit rate at 10 | P@10" for size in sizes) + " |",
        "| --- |" + " ---: |" * (2 * len(found)),
    ]
    for name, queries in rows.items():
        cells = [
            [f"{random_hit_rate(g):.2f}", f"{_random_precision(g):.3f}"] if queries is None else _cells(queries, g)
            for g in found
        ]
        lines.append(f"| {name} | {' | '.join(cell for pair in cells for cell in pair)} |")
    return "\n".join(lines)


def _cells(queries: Float32, gallery: Gallery) -> list[str]:
    result = search(queries, gallery)
    low, high = interval(result)
    return [f"{result.hit_rate:.2f} ({low:.2f} to {high:.2f})", f"{result.mean_precision:.3f}"]


def _drawings(drawn: Float32, texts: Float32, found: list[Gallery]) -> str:
    gallery, photographs = found[0], found[1]
    results = [search(drawn, gallery), search(texts, gallery), search(drawn + np.float32(PAGE_WEIGHT) * texts, gallery)]
    alone = search(drawn, photographs)
    lines = [
        "| drawing | relevant images | rank of the first hit | hits in ten | among photographs: rank | text: rank "
        "| both: rank |",
        "| --- |" + " ---: |" * 6,
    ]
    for drawing, relevant in zip(DRAWINGS, gallery.relevant, strict=True):
        ranks = [result.ranks.get(drawing.name, 0) for result in results]
        hits = round(results[0].precision[drawing.name] * min(K, int(relevant.sum())))
        lines.append(
            f"| {drawing.name} | {int(relevant.sum())} | {ranks[0]:,} | {hits} | {alone.ranks.get(drawing.name, 0):,} "
            f"| {ranks[1]:,} | {ranks[2]:,} |"
        )
    return "\n".join(lines)


def _classes(drawn: Float32, gallery: Gallery) -> str:
    precision = search(drawn, gallery).precision
    return f"Hits in ten of {gallery.name}: " + ", ".join(
        f"{name} {K * share:.0f}" for name, share in precision.items()
    )


def contact_sheet(images: list[bytes], queries: Float32, gallery: Gallery, examples: Sequence[Example]) -> Image.Image:
    """Return the drawings, each with its ten best images; hits are framed in green."""
    cell, columns = 96, K + 1
    sheet = Image.new("RGB", (cell * columns, cell * len(images)), "white")
    pen = ImageDraw.Draw(sheet)
    scores = queries @ gallery.vectors.T
    for row, data in enumerate(images):
        best = np.argsort(-scores[row], kind="stable")[:K]
        for column, content in enumerate([data, *(examples[i].load() for i in best)]):
            tile = Image.open(io.BytesIO(content)).convert("RGB").resize((cell - 6, cell - 6))
            sheet.paste(tile, (column * cell + 3, row * cell + 3))
        for column, i in enumerate(best, 1):
            color = "green" if gallery.relevant[row, i] else "white"
            left, top = column * cell, row * cell
            pen.rectangle((left, top, left + cell - 1, top + cell - 1), outline=color, width=3)
    return sheet


def main() -> None:
    """Parse the command line, measure, print."""
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="lite", help="encoder's name")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LOOKALIKE_TEST_DATA", shared)))
    parser.add_argument("--cache", type=Path, help="folder that keeps the gallery's embeddings between runs")
    parser.add_argument("--sheet", type=Path, help="file for a contact sheet: each drawing and its ten best images")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder, EngineOptions("cpu", "auto", "auto", None))
    examples, found = galleries(options.data, encoder, options.cache)
    rendered = rendered_variants()
    sketches = {
        name: embed_images(encoder, [lambda data=data: data for _, data in images])[0]  # type: ignore[misc]
        for name, images in rendered.items()
    }
    page = next(iter(rendered.values()))
    texts = embed_texts(encoder, [drawing.name for drawing in DRAWINGS])
    print(f"{options.encoder}: {machine()}\n")
    print(report(sketches, texts, found, [length for length, _ in page]))
    if options.sheet:
        drawn = next(iter(sketches.values()))
        contact_sheet([data for _, data in page], drawn, found[0], examples).save(options.sheet)


if __name__ == "__main__":
    main()
