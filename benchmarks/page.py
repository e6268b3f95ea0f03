"""Time until the search page's first paint and first images, and of a frame of its map, in headless Chromium.

`python -m benchmarks.page URL [URL ...]` loads each page in turn, each time with an empty cache, and prints medians in
milliseconds. Give the pages of two releases to compare them. `--map` draws generated maps on the first page instead.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from statistics import median

from playwright.sync_api import Browser, Page, Route, sync_playwright

_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
_FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_IMAGES = "() => [...document.querySelectorAll('.card img')].filter((image) => image.naturalWidth).length >= 4"
_WATCH_FRAMES = """() => {
  window.frames = [];
  new PerformanceObserver((list) => window.frames.push(...list.getEntriesByName("map-frame").map((e) => e.duration)))
    .observe({ entryTypes: ["measure"] });
}"""
_MAPS = (10_000, 100_000)
_STEPS = 60


def main() -> None:
    """Measure the pages at the URLs of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("urls", nargs="+", metavar="URL", help="a search page, such as http://127.0.0.1:8000/")
    parser.add_argument("--loads", type=int, default=15, help="loads of each page, default 15")
    parser.add_argument(
        "--map", action="store_true", help="measure the script of a frame of the map while it is panned"
    )
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS)
        if args.map:
            _measure_maps(browser, args.urls[0])
        else:
            _measure_loads(browser, args.urls, args.loads)
        browser.close()


def _measure_loads(browser: Browser, urls: list[str], loads: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {url: [] for url in urls}
    for _ in range(loads):
        for url, measured in times.items():
            measured.append(_load(browser, url))
    for url, measured in times.items():
        paint, images = (median(column) for column in zip(*measured, strict=True))
        print(f"{url}  first paint {paint:.0f} ms, four images {images:.0f} ms")


def _load(browser: Browser, url: str) -> tuple[float, float]:
    """Return the milliseconds until the first paint and until four images are loaded."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.goto(url)
    page.wait_for_function(_IMAGES)
    images = page.evaluate("performance.now()")
    paint = page.wait_for_function(_FIRST_PAINT).json_value()
    page.close()
    return paint, images


def _measure_maps(browser: Browser, url: str) -> None:
    for count in _MAPS:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        frames = _pan(page, url, count)
        page.close()
        print(
            f"{count:,} points: {median(frames):.1f} ms in the median, {max(frames):.1f} at most, {len(frames)} frames"
        )


def _pan(page: Page, url: str, count: int) -> list[float]:
    """Return the milliseconds of script of each frame while a map of random points is panned."""
    page.route("**/v1/map*", lambda route: _answer(route, count))
    page.goto(f"{url}?view=map")
    canvas = page.locator("#map canvas").first
    canvas.wait_for()
    page.wait_for_timeout(3000)
    page.evaluate(_WATCH_FRAMES)
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + 300, box["y"] + 200
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(_STEPS):
        page.mouse.move(x + 4 * step, y + 2 * (step % 9))
        page.wait_for_timeout(20)
    page.mouse.up()
    page.wait_for_timeout(200)
    frames: list[float] = page.evaluate("window.frames")
    return frames


def _answer(route: Route, count: int) -> None:
    response = route.request.frame.page.request.get(route.request.url.split("/map")[0] + "/items?limit=1").json()
    numbers = random.Random(0)
    places = {axis: [round(numbers.random(), 5) for _ in range(count)] for axis in "xy"}
    made = {"items": count, "unmapped": 0, "method": "umap", "created": "2026-01-01T00:00:00Z", "field": None}
    source = {name: response[name] for name in ("collection", "version", "encoder")}
    body = {**made, **source, "ids": [f"item/{i}" for i in range(count)], **places}
    route.fulfill(body=json.dumps(body), content_type="application/json")


if __name__ == "__main__":
    main()
