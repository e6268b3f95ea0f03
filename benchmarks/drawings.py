"""Thirty scripted drawings of simple things, and which images each should find.

A drawing is a list of strokes as app/web/sketch/strokes.js takes them, drawn from memory rather than after an image.
Lines wobble by about 1 % of the canvas, as those of a hand do. Relevant images are found by words in their captions.
"""

from __future__ import annotations

import math
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Point = tuple[float, float]
Stroke = dict[str, Any]
"""color, width (share of the canvas), fill, points (x, y in 0..1)."""

# The page's pens (COLORS in strokes.js).
BLACK, GREY, WHITE, BROWN, SKIN = "#1a1a1a", "#8c8c8c", "#ffffff", "#7a4a21", "#f0c8a0"
RED, ORANGE, YELLOW, LIME, GREEN = "#e02020", "#f58a1f", "#ffd92e", "#7ed348", "#1f8a34"
SKY, BLUE, PINK = "#7cc8f5", "#1f55d6", "#f58ac0"
PEN, BRUSH = 0.02, 0.05
_STEP, _WOBBLE = 0.04, 0.008


def line(color: str, *points: Point, width: float = PEN) -> Stroke:
    """Return a line."""
    return {"color": color, "width": width, "fill": False, "points": list(points)}


def area(color: str, *points: Point) -> Stroke:
    """Return a closed shape, filled."""
    return {"color": color, "width": PEN, "fill": True, "points": [*points, points[0]]}


def arc(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> list[Point]:
    """Return points of an ellipse; angles in degrees, clockwise from the right."""
    count = max(4, round(abs(end - start) / 15))
    angles = [math.radians(start + (end - start) * i / count) for i in range(count + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def disc(color: str, x: float, y: float, rx: float, ry: float | None = None) -> Stroke:
    """Return a filled circle, or an ellipse."""
    return area(color, *arc(x, y, rx, rx if ry is None else ry))


def box(color: str, left: float, top: float, right: float, bottom: float) -> Stroke:
    """Return a filled rectangle."""
    return area(color, (left, top), (right, top), (right, bottom), (left, bottom))


def _hills() -> list[Stroke]:
    hills = [(0.0, 0.65), (0.15, 0.52), (0.3, 0.48), (0.45, 0.55), (0.6, 0.5), (0.8, 0.42), (1.0, 0.55)]
    near = [(0.0, 0.8), (0.25, 0.7), (0.5, 0.72), (0.75, 0.78), (1.0, 0.7)]
    corners: list[Point] = [(1.0, 1.0), (0.0, 1.0)]
    return [
        box(SKY, 0, 0, 1, 0.6), disc(YELLOW, 0.7, 0.25, 0.11), area(GREEN, *hills, *corners),
        area(LIME, *near, *corners),
    ]  # fmt: skip


def _house() -> list[Stroke]:
    return [
        box(SKY, 0, 0, 1, 0.8), box(LIME, 0, 0.8, 1, 1), box(SKIN, 0.22, 0.45, 0.78, 0.85),
        area(RED, (0.15, 0.47), (0.5, 0.18), (0.85, 0.47)), box(BROWN, 0.44, 0.62, 0.56, 0.85),
        box(BLUE, 0.28, 0.53, 0.38, 0.64), box(BLUE, 0.62, 0.53, 0.72, 0.64),
    ]  # fmt: skip


def _stripes() -> list[Stroke]:
    return [box(BLACK, 0, i / 5, 1, i / 5 + 0.1) for i in range(5)]


def _tree() -> list[Stroke]:
    leaves = [disc(GREEN, x, y, 0.2) for x, y in ((0.36, 0.4), (0.64, 0.4), (0.5, 0.27), (0.5, 0.45))]
    return [box(SKY, 0, 0, 1, 0.8), box(LIME, 0, 0.8, 1, 1), box(BROWN, 0.44, 0.5, 0.56, 0.87), *leaves]


def _fish() -> list[Stroke]:
    return [
        area(ORANGE, (0.68, 0.5), (0.92, 0.3), (0.92, 0.7)), disc(ORANGE, 0.42, 0.5, 0.32, 0.2),
        disc(BLACK, 0.22, 0.45, 0.025), line(BROWN, *arc(0.24, 0.5, 0.12, 0.16, -60, 60)),
    ]  # fmt: skip


def _cat_face() -> list[Stroke]:
    whiskers = [
        line(BLACK, (0.5 + s * 0.1, 0.66), (0.5 + s * 0.4, 0.6 + d), width=0.01) for s in (-1, 1) for d in (0.0, 0.1)
    ]
    ears = [area(ORANGE, (0.5 + s * 0.33, 0.5), (0.5 + s * 0.3, 0.1), (0.5 + s * 0.08, 0.32)) for s in (-1, 1)]
    eyes = [disc(color, 0.5 + s * 0.13, 0.5, r, 0.05) for s in (-1, 1) for color, r in ((LIME, 0.055), (BLACK, 0.018))]
    nose = area(PINK, (0.46, 0.6), (0.54, 0.6), (0.5, 0.65))
    mouth = [line(BLACK, *arc(0.5 + s * 0.05, 0.66, 0.05, 0.04, 0, 180), width=0.012) for s in (-1, 1)]
    return [*ears, disc(ORANGE, 0.5, 0.55, 0.34, 0.31), *eyes, nose, *mouth, *whiskers]


def _car() -> list[Stroke]:
    wheels = [disc(color, x, 0.68, r) for x in (0.28, 0.72) for color, r in ((BLACK, 0.09), (GREY, 0.045))]
    cabin = area(RED, (0.25, 0.47), (0.36, 0.3), (0.64, 0.3), (0.77, 0.47))
    windows = [
        area(SKY, (0.31, 0.46), (0.39, 0.34), (0.48, 0.34), (0.48, 0.46)),
        area(SKY, (0.52, 0.34), (0.61, 0.34), (0.69, 0.46), (0.52, 0.46)),
    ]
    return [cabin, box(RED, 0.08, 0.47, 0.92, 0.66), *windows, *wheels]


def _boat() -> list[Stroke]:
    return [
        box(SKY, 0, 0, 1, 0.7), box(BLUE, 0, 0.7, 1, 1),
        area(BROWN, (0.2, 0.65), (0.8, 0.65), (0.7, 0.8), (0.3, 0.8)), line(BROWN, (0.5, 0.12), (0.5, 0.65)),
        area(WHITE, (0.53, 0.14), (0.53, 0.6), (0.82, 0.6)), area(WHITE, (0.47, 0.2), (0.47, 0.6), (0.25, 0.6)),
    ]  # fmt: skip


def _flower() -> list[Stroke]:
    petals = [disc(YELLOW, 0.5 + 0.2 * math.cos(a), 0.36 + 0.2 * math.sin(a), 0.1) for a in range(8)]
    leaf = disc(GREEN, 0.62, 0.75, 0.12, 0.05)
    return [line(GREEN, (0.5, 0.45), (0.51, 0.95), width=BRUSH), leaf, *petals, disc(BROWN, 0.5, 0.36, 0.13)]


def _moon() -> list[Stroke]:
    stars = [disc(WHITE, x, y, 0.008) for x, y in ((0.15, 0.2), (0.82, 0.15), (0.2, 0.75), (0.85, 0.7), (0.5, 0.08))]
    return [box(BLACK, 0, 0, 1, 1), disc(YELLOW, 0.5, 0.48, 0.25), *stars]


def _umbrella() -> list[Stroke]:
    return [
        line(BROWN, (0.5, 0.2), (0.5, 0.8), *arc(0.43, 0.8, 0.07, 0.08, 0, 180)),
        area(RED, *arc(0.5, 0.5, 0.38, 0.33, 180, 360)),
        *(line(BLACK, (0.5, 0.18), (x, 0.5), width=0.01) for x in (0.37, 0.63)),
    ]


def _cup() -> list[Stroke]:
    return [
        line(BLUE, *arc(0.68, 0.52, 0.15, 0.13, -80, 80), width=BRUSH),
        area(BLUE, (0.25, 0.3), (0.7, 0.3), (0.66, 0.75), (0.29, 0.75)), disc(BROWN, 0.475, 0.3, 0.21, 0.05),
    ]  # fmt: skip


def _apple() -> list[Stroke]:
    return [
        disc(RED, 0.39, 0.55, 0.22, 0.27), disc(RED, 0.61, 0.55, 0.22, 0.27),
        line(BROWN, (0.5, 0.35), (0.53, 0.16), width=0.03), disc(GREEN, 0.63, 0.2, 0.09, 0.04),
    ]  # fmt: skip


def _banana() -> list[Stroke]:
    return [
        area(YELLOW, *arc(0.5, 0.25, 0.42, 0.5, 165, 15), *arc(0.5, 0.22, 0.37, 0.3, 15, 165)),
        line(BROWN, (0.09, 0.38), (0.06, 0.3), width=0.04), disc(BROWN, 0.9, 0.38, 0.02),
    ]  # fmt: skip


def _clock() -> list[Stroke]:
    angles = [math.radians(30 * i) for i in range(12)]
    ticks = [
        line(BLACK, *((0.5 + r * math.cos(a), 0.5 + r * math.sin(a)) for r in (0.31, 0.36)), width=0.015)
        for a in angles
    ]
    hands = [line(BLACK, (0.5, 0.5), (0.5, 0.25)), line(BLACK, (0.5, 0.5), (0.66, 0.58), width=0.03)]
    return [disc(BLACK, 0.5, 0.5, 0.43), disc(WHITE, 0.5, 0.5, 0.38), *ticks, *hands]


def _star() -> list[Stroke]:
    radii = (0.42, 0.17)
    corners = [(radii[i % 2], math.radians(36 * i - 90)) for i in range(10)]
    return [area(YELLOW, *((0.5 + r * math.cos(a), 0.53 + r * math.sin(a)) for r, a in corners))]


def _mountain() -> list[Stroke]:
    peaks = [((0.3, 0.25), 0.38), ((0.7, 0.18), 0.42)]
    strokes = [box(SKY, 0, 0, 1, 0.8)]
    for (x, y), half in peaks:
        rise = (0.85 - y) / half
        cap = [(x, y), (x + 0.13, y + 0.13 * rise), (x + 0.05, y + 0.17), (x, y + 0.23), (x - 0.05, y + 0.17)]
        strokes += [
            area(GREY, (x, y), (x + half, 0.85), (x - half, 0.85)),
            area(WHITE, *cap, (x - 0.13, y + 0.13 * rise)),
        ]
    return [*strokes, box(GREEN, 0, 0.83, 1, 1)]


def _beach() -> list[Stroke]:
    return [
        box(SKY, 0, 0, 1, 0.42), box(BLUE, 0, 0.42, 1, 0.65), box(SKIN, 0, 0.65, 1, 1),
        line(WHITE, (0, 0.66), (0.3, 0.64), (0.6, 0.67), (1, 0.65), width=0.03), disc(YELLOW, 0.8, 0.15, 0.08),
    ]  # fmt: skip


def _checkerboard() -> list[Stroke]:
    cells = [(i, j) for i in range(6) for j in range(6) if (i + j) % 2]
    return [box(BLACK, i / 6, j / 6, (i + 1) / 6, (j + 1) / 6) for i, j in cells]


def _pizza() -> list[Stroke]:
    spots = ((0.4, 0.35), (0.62, 0.4), (0.35, 0.58), (0.55, 0.65), (0.68, 0.58), (0.5, 0.5))
    return [disc(BROWN, 0.5, 0.5, 0.43), disc(YELLOW, 0.5, 0.5, 0.37), *(disc(RED, x, y, 0.06) for x, y in spots)]


def _traffic_light() -> list[Stroke]:
    lights = ((RED, 0.22), (YELLOW, 0.42), (GREEN, 0.62))
    return [
        line(GREY, (0.5, 0.7), (0.5, 1), width=BRUSH), box(BLACK, 0.36, 0.08, 0.64, 0.76),
        *(disc(color, 0.5, y, 0.08) for color, y in lights),
    ]  # fmt: skip


def _balloon() -> list[Stroke]:
    string = line(BLACK, (0.5, 0.68), (0.47, 0.78), (0.53, 0.86), (0.5, 0.97), width=0.01)
    return [string, disc(RED, 0.5, 0.36, 0.24, 0.3), area(RED, (0.5, 0.64), (0.46, 0.7), (0.54, 0.7))]


def _leaf() -> list[Stroke]:
    blade = area(GREEN, (0.5, 0.08), *arc(0.5, 0.48, 0.25, 0.33, -60, 90), *arc(0.5, 0.48, 0.25, 0.33, 90, 240))
    veins = [line(LIME, (0.5, y), (0.5 + s * 0.16, y - 0.12), width=0.01) for s in (-1, 1) for y in (0.4, 0.55, 0.7)]
    return [blade, line(LIME, (0.5, 0.15), (0.5, 0.95)), *veins]


def _candle() -> list[Stroke]:
    return [
        box(WHITE, 0.4, 0.42, 0.6, 0.92), line(GREY, (0.4, 0.42), (0.6, 0.42), (0.6, 0.92), (0.4, 0.92), (0.4, 0.42)),
        line(BLACK, (0.5, 0.42), (0.5, 0.34)), disc(ORANGE, 0.5, 0.24, 0.06, 0.11), disc(YELLOW, 0.5, 0.27, 0.03, 0.06),
    ]  # fmt: skip


def _key() -> list[Stroke]:
    teeth = [line(YELLOW, (x, 0.5), (x, 0.62), width=BRUSH) for x in (0.75, 0.85)]
    return [
        line(YELLOW, *arc(0.25, 0.5, 0.14, 0.14), width=BRUSH),
        line(YELLOW, (0.4, 0.5), (0.9, 0.5), width=BRUSH),
        *teeth,
    ]


def _carrot() -> list[Stroke]:
    greens = [line(GREEN, (0.3, 0.3), point, width=0.04) for point in ((0.12, 0.28), (0.16, 0.14), (0.3, 0.1))]
    return [*greens, area(ORANGE, (0.24, 0.38), (0.3, 0.27), (0.4, 0.25), (0.85, 0.88))]


def _airplane() -> list[Stroke]:
    return [
        box(SKY, 0, 0, 1, 1), area(GREY, (0.14, 0.45), (0.08, 0.25), (0.16, 0.25), (0.28, 0.45)),
        disc(WHITE, 0.5, 0.5, 0.4, 0.08), area(GREY, (0.42, 0.52), (0.6, 0.52), (0.42, 0.8), (0.34, 0.8)),
        *(disc(BLUE, 0.35 + 0.08 * i, 0.48, 0.015) for i in range(6)),
    ]  # fmt: skip


def _dog_in_snow() -> list[Stroke]:
    legs = [line(BROWN, (x, 0.6), (x, 0.82), width=BRUSH) for x in (0.32, 0.4, 0.6, 0.68)]
    return [
        box(SKY, 0, 0, 1, 0.35), line(BROWN, (0.28, 0.5), (0.15, 0.38), width=BRUSH), *legs,
        disc(BROWN, 0.5, 0.55, 0.24, 0.11), disc(BROWN, 0.76, 0.4, 0.11), disc(BROWN, 0.86, 0.44, 0.07, 0.05),
        disc(BLACK, 0.69, 0.42, 0.04, 0.09), disc(BLACK, 0.78, 0.37, 0.015), disc(BLACK, 0.92, 0.43, 0.02),
    ]  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """A drawing and its ground truth.

    Attributes:
        name: also the text query that is measured beside it.
        draw: returns its strokes.
        words: regular expressions; a relevant image has each in at least 40 % of its captions, as whole words.
        unless: regular expression that no caption of a relevant image has.
        cifar: its class of CIFAR-10, if it is one.
    """

    name: str
    draw: Callable[[], list[Stroke]]
    words: tuple[str, ...]
    unless: str = ""
    cifar: str = ""

    def strokes(self) -> list[Stroke]:
        """Return the strokes, with the wobble of a hand."""
        rng = random.Random(zlib.crc32(self.name.encode()))
        return [{**stroke, "points": _wobbly(stroke["points"], rng)} for stroke in self.draw()]

    def relevant(self, captions: Sequence[str]) -> bool:
        """Return whether an image with these captions is a hit."""
        lower = [caption.lower() for caption in captions]
        if self.unless and any(re.search(self.unless, caption) for caption in lower):
            return False
        return bool(lower) and all(
            sum(re.search(rf"\b(?:{words})\b", caption) is not None for caption in lower) >= 0.4 * len(lower)
            for words in self.words
        )


def _wobbly(points: list[Point], rng: random.Random) -> list[Point]:
    """Return points every 4 % of the canvas, moved by a smoothed random walk."""
    walked: list[Point] = []
    dx = dy = 0.0
    for (ax, ay), (bx, by) in pairwise(points):
        steps = max(1, round(math.hypot(bx - ax, by - ay) / _STEP))
        for i in range(steps):
            dx, dy = (0.7 * d + rng.gauss(0, _WOBBLE * 0.7) for d in (dx, dy))
            walked.append((ax + (bx - ax) * i / steps + dx, ay + (by - ay) * i / steps + dy))
    return [*walked, (points[-1][0] + dx, points[-1][1] + dy)]


DRAWINGS = (
    Drawing("a sun over hills", _hills, ("hills?|valley|countryside|sunset|sunrise|mountains?|meadow",), "bike"),
    Drawing("a house", _house, ("houses?|cottages?|huts?|cabins?|barns?",), "room|kitchen"),
    Drawing("a red ball", lambda: [disc(RED, 0.5, 0.5, 0.3)], ("red", "balls?")),
    Drawing("stripes", _stripes, ("banded|stripes?|striped",)),
    Drawing("a tree", _tree, ("trees?",), "branch"),
    Drawing("a fish", _fish, ("fish|goldfish|sharks?",), "canned|chips|fishing"),
    Drawing("a cat", _cat_face, ("cats?|kittens?",), cifar="cat"),
    Drawing("a car", _car, ("cars?|taxi|automobiles?|convertible",), cifar="automobile"),
    Drawing("a sailing boat", _boat, ("boats?|sailboats?|yachts?|ships?",), cifar="ship"),
    Drawing("a yellow flower", _flower, ("flowers?|sunflowers?|dais(y|ies)|roses?|tulips?",), "gold|cards|pot"),
    Drawing("the moon at night", _moon, ("moon|moonlight|night",)),
    Drawing("an umbrella", _umbrella, ("umbrellas?|parasols?",)),
    Drawing("a cup", _cup, ("cups?|mugs?|teacups?",)),
    Drawing("an apple", _apple, ("apples?",), "pineapple|juice|pie|apple (inc|mac|ipod|iphone)"),
    Drawing("a banana", _banana, ("bananas?",)),
    Drawing("a clock", _clock, ("clocks?",)),
    Drawing("a star", _star, ("stars?|starfish",), "star fruit"),
    Drawing("a mountain with snow", _mountain, ("mountains?|volcano|alps?",), "bike"),
    Drawing("a beach", _beach, ("beach|beaches|seaside|coast|seashore",)),
    Drawing("a checkerboard", _checkerboard, ("chequered|checkered|checkerboard|chess|chessboard",)),
    Drawing("a pizza", _pizza, ("pizzas?",)),
    Drawing("a traffic light", _traffic_light, ("traffic lights?|traffic signals?|stoplights?",)),
    Drawing("a red balloon", _balloon, ("balloons?",), "thought|chair"),
    Drawing("a green leaf", _leaf, ("leaf|leaves",), "blower|rake"),
    Drawing("an egg", lambda: [disc(SKIN, 0.5, 0.52, 0.27, 0.36)], ("eggs?",)),
    Drawing("a candle", _candle, ("candles?",)),
    Drawing("a key", _key, ("keys?",), "api|card|board"),
    Drawing("a carrot", _carrot, ("carrots?",), "cake"),
    Drawing("an airplane", _airplane, ("air ?planes?|planes?|jets?|airliners?|jetliners?",), "carrier", "airplane"),
    Drawing("a dog in snow", _dog_in_snow, ("dogs?|pupp(y|ies)", "snow|snowy"), cifar="dog"),
)  # fmt: skip
