"""The map of the collection: the view, thumbnails, colours, results, the lasso, and the time of a frame."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from statistics import median
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from app.settings import Settings
from lookalike.collection import VERSIONS, current_version
from lookalike.collection_map import MAP_FILE, CollectionMap, map_bytes
from tests.api.small_collection import ITEMS, WITHOUT_THUMBNAIL, build_collection
from tests.api.waiting import eventually
from tests.web.conftest import serving

ANGLES = [2 * math.pi * i / len(ITEMS) for i in range(len(ITEMS))]
CIRCLE = {item: (0.5 + 0.5 * math.cos(a), 0.5 + 0.5 * math.sin(a)) for item, a in zip(ITEMS, ANGLES, strict=True)}
"""The items, on a circle; the first one is at its right end."""

ACCENT, DIMMED, HIGH = [79, 70, 229], [200, 197, 246], [51, 23, 107]
"""Colours of a point: by default, while others are results, and of the greatest number."""

WIDTHS = [100 * (i + 1) for i in range(len(ITEMS))]

WATCH_FRAMES = """() => {
  window.frames = [];
  new PerformanceObserver((list) => window.frames.push(...list.getEntriesByName("map-frame").map((e) => e.duration)))
    .observe({ entryTypes: ["measure"] });
}"""

PIXEL = """(canvas, [x, y]) => {
  const ratio = canvas.width / canvas.clientWidth;
  return [...canvas.getContext("2d").getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1).data].slice(0, 3);
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a service with nine photographs, whose map is the circle."""
    root = build_collection(tmp_path_factory.mktemp("web") / "photographs")
    version, points = current_version(root), np.array(list(CIRCLE.values()), np.float32)
    made = CollectionMap(version=version, points=points, method="umap", params={}, created="2026-01-01T00:00:00Z")
    (root / VERSIONS / version / MAP_FILE).write_bytes(map_bytes(made))
    with serving(Settings(collection=root)) as address:
        yield address


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """Return an empty page."""
    return context.new_page()


def respond(page: Page, positions: dict[str, tuple[float, float]], **more: Any) -> list[str]:
    """Let the map be these positions; return the list of the fields that it was requested with."""
    fields: list[str] = []
    ids, points = list(positions), list(positions.values())
    body = {"items": len(ids), "method": "umap", "created": "2026-01-01T00:00:00Z", "ids": ids, "unmapped": 0}
    body |= {"x": [x for x, _ in points], "y": [y for _, y in points], "field": None, "encoder": "fake"}
    body |= {"collection": "photographs", "version": page.request.get("/v1/items?limit=1").json()["version"], **more}

    def fulfill(route: Route) -> None:
        fields.append("".join(parse_qs(urlsplit(route.request.url).query).get("field", [])))
        kinds = {"caption": ("text", [caption for _, caption in ITEMS.values()]), "width": ("integer", WIDTHS)}
        kind, values = kinds.get(fields[-1], ("", []))
        field = {"name": fields[-1], "type": kind, "values": values} if kind else None
        route.fulfill(json={**body, "field": field})

    page.route("**/v1/map*", fulfill)
    return fields


def show_map(page: Page, query: str = "") -> Locator:
    """Open the map and return its canvas."""
    page.goto(f"./?{query}view=map")
    expect(page.locator(".map-status")).to_contain_text("image")
    return page.get_by_role("application")


def position(canvas: Locator, item: str) -> tuple[float, float]:
    """Return where an item of the circle is on the canvas while everything fits; it is wider than high."""
    width, height = canvas.evaluate("canvas => [canvas.clientWidth, canvas.clientHeight]")
    low, high = np.min(list(CIRCLE.values()), axis=0), np.max(list(CIRCLE.values()), axis=0)
    x, y = (np.array(CIRCLE[item]) - (low + high) / 2) * (height - 144) / (high[1] - low[1])
    return width / 2 + x, height / 2 + y


def wait_for_colour(canvas: Locator, at: tuple[float, float], colour: list[int]) -> None:
    eventually(lambda: canvas.evaluate(PIXEL, list(at)) == colour, 5.0)


def drag(page: Page, canvas: Locator, points: list[tuple[float, float]]) -> None:
    box = canvas.bounding_box()
    assert box is not None
    (x, y), *others = [(box["x"] + x, box["y"] + y) for x, y in points]
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in others:
        page.mouse.move(x, y)
    page.mouse.up()


def hover(canvas: Locator, at: tuple[float, float]) -> None:
    canvas.hover(position={"x": at[0], "y": at[1]})


def item_of(page: Page) -> list[str]:
    return parse_qs(urlsplit(page.url).query).get("item", [])


def filtered(page: Page) -> set[str]:
    """Wait for the filter and return the ids that the results are limited to."""
    expect(page.locator("#filter-chips")).to_contain_text("lasso")
    expect(page.locator("#status")).to_contain_text("pass the filters")
    return set(page.locator(".card").evaluate_all("cards => cards.map((card) => card.dataset.id)"))


def test_point_shows_its_name_and_opens_its_details(page: Page) -> None:
    canvas, item = show_map(page), "space/rocket.jpg"
    at = position(canvas, item)
    hover(canvas, at)
    expect(page.locator(".map-tooltip")).to_contain_text("a rocket on its pad")
    expect(page.locator(".map-tooltip img")).to_have_js_property("complete", value=True)
    canvas.click(position={"x": at[0], "y": at[1]})
    page.wait_for_url("**item=*")
    assert item_of(page) == [item]


def test_pan_zoom_and_fit_move_the_points(page: Page) -> None:
    canvas, tooltip = show_map(page), page.locator(".map-tooltip")
    x, y = position(canvas, "animals/cat.png")
    drag(page, canvas, [(300.0, 300.0), (240.0, 280.0), (200.0, 260.0)])
    hover(canvas, (x - 100, y - 40))
    expect(tooltip).to_contain_text("a cat")
    page.mouse.wheel(0, -200)  # about the mouse: the cat stays below it
    hover(canvas, (x - 101, y - 41))
    expect(tooltip).to_contain_text("a cat")
    page.get_by_role("button", name="Show everything").click()
    hover(canvas, (x, y))
    expect(tooltip).to_contain_text("a cat")


def test_keyboard_moves_zooms_and_opens(page: Page) -> None:
    respond(page, {item: (0.5, 0.5) if item == "cup" else (0.0, 0.1 * i) for i, item in enumerate(ITEMS)})
    canvas = show_map(page)
    canvas.press("0")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowRight", "+"):
        canvas.press(key)
    expect(page.locator(".map-tooltip")).to_have_text("cup")
    canvas.press("Enter")
    page.wait_for_url("**item=*")
    assert item_of(page) == ["cup"]


def test_thumbnails_replace_points(page: Page) -> None:
    canvas = show_map(page)
    wait_for_colour(canvas, position(canvas, "animals/höhe & breite?#100%.png"), [0, 0, 0])  # a silhouette
    wait_for_colour(canvas, position(canvas, WITHOUT_THUMBNAIL), ACCENT)


def test_colours_follow_the_values_of_a_field(page: Page) -> None:
    fields = respond(page, CIRCLE)
    canvas = show_map(page)
    choice, legend, at = (
        page.get_by_label("Colour by"),
        page.locator(".map-legend"),
        position(canvas, WITHOUT_THUMBNAIL),
    )
    choice.select_option("width")
    expect(legend).to_contain_text("width100900")
    wait_for_colour(canvas, at, HIGH)
    choice.select_option("caption")
    expect(legend.get_by_role("listitem")).to_have_count(len(ITEMS))
    expect(legend).to_contain_text("no value1")
    choice.select_option("nothing")
    expect(legend).to_be_hidden()
    wait_for_colour(canvas, at, ACCENT)
    assert fields == ["", "width", "caption"]


@pytest.mark.parametrize(("result", "colour"), [(WITHOUT_THUMBNAIL, ACCENT), ("animals/cat.png", DIMMED)])
def test_results_stand_out(page: Page, result: str, colour: list[int]) -> None:
    canvas = show_map(page, f"q=red&f={quote(json.dumps({'field': 'id', 'in': [result]}))}&")
    expect(page.locator(".map-status")).to_contain_text("1 result highlighted")
    wait_for_colour(canvas, position(canvas, WITHOUT_THUMBNAIL), colour)


def test_lasso_is_a_filter(page: Page) -> None:
    canvas = show_map(page)
    page.get_by_role("button", name="Lasso", exact=True).click()
    x, y = position(canvas, "animals/cat.png")
    around = [(x + 70 * math.cos(k / 16), y + 70 * math.sin(k / 16)) for k in range(100)]
    drag(page, canvas, around)
    assert filtered(page) == {"animals/cat.png"}
    (text,) = parse_qs(urlsplit(page.url).query)["lasso"]
    expect(page.locator(".map-status")).to_contain_text("highlighted")
    assert len(text.split()) <= 60
    wait_for_colour(canvas, (x - 65, y), [234, 233, 252])  # the accent at 12 %
    page.get_by_role("button", name="Remove lasso").click()
    expect(page.locator("#filter-chips")).to_be_empty()


def test_view_is_a_filter_and_an_empty_one_is_not(page: Page) -> None:
    canvas, button = show_map(page), page.get_by_role("button", name="Filter to what is in view")
    button.press("Enter")
    assert filtered(page) == set(ITEMS)
    x, _ = position(canvas, "animals/cat.png")
    for _ in range(math.ceil((x + 20) / 60)):  # until the rightmost point is beyond the left edge
        canvas.press("ArrowRight")
    button.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("There are no images in this part of the map")


def test_filter_takes_at_most_10000_items(page: Page) -> None:
    respond(page, grid(10_001))
    show_map(page)
    page.get_by_role("button", name="Filter to what is in view").click()
    expect(page.locator("#toasts")).to_contain_text("There are 10,001 images in this part of the map")
    assert "lasso" not in page.url


def grid(count: int) -> dict[str, tuple[float, float]]:
    side = math.ceil(math.sqrt(count))
    return {f"grid/{i}": (i % side / side, i // side / side) for i in range(count)}


def test_frame_of_ten_thousand_points_takes_at_most_8_ms(page: Page) -> None:
    respond(page, grid(10_000))
    canvas = show_map(page)
    page.evaluate(WATCH_FRAMES)
    drag(page, canvas, [(300.0 + 3 * i, 200.0 + 2 * (i % 9)) for i in range(40)])
    page.wait_for_timeout(100)
    frames = page.evaluate("window.frames")
    assert len(frames) > 10
    assert median(frames) <= 8.0
    page.wait_for_timeout(100)
    assert len(page.evaluate("window.frames")) == len(frames)  # nothing changed: no frame


@pytest.mark.parametrize(
    "positions",
    [{}, {"cup": (0.3, 0.7)}, dict.fromkeys(ITEMS, (0.5, 0.5))],
    ids=["empty", "one", "equal"],
)
def test_degenerate_maps_are_drawn(page: Page, positions: dict[str, tuple[float, float]]) -> None:
    respond(page, positions)
    canvas = show_map(page)
    for name in ("Zoom in", "Zoom out", "Show everything"):
        page.get_by_role("button", name=name).click()
    if positions:
        page.get_by_role("button", name="Filter to what is in view").click()
        assert filtered(page) == set(positions)
    expect(canvas).to_be_visible()


def test_missing_map_names_the_command_and_can_be_retried(page: Page) -> None:
    detail = "collection photographs has no map; compute it: lookalike map photographs"
    body = {"title": "No map", "detail": detail, "code": "no_map", "status": 404}
    page.route("**/v1/map*", lambda route: route.fulfill(status=404, json=body))
    page.goto("./?view=map")
    expect(page.locator("#map").get_by_role("alert")).to_contain_text(detail)
    page.unroute("**/v1/map*")
    respond(page, CIRCLE)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("application", name=f"Map of {len(ITEMS)} images")).to_be_visible()


def test_map_of_another_version_is_loaded_again(page: Page) -> None:
    fields = respond(page, CIRCLE, version="old")
    show_map(page)
    expect(page.locator("#status")).to_contain_text("images")
    page.wait_for_timeout(300)
    assert len(fields) == 2  # once more for the version of the results, and no more


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_map_has_no_accessibility_violations(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    show_map(page, "lasso=0.1,0.1+0.9,0.1+0.9,0.9&")
    for field in ("width", "caption"):
        page.get_by_label("Colour by").select_option(field)
        expect(page.locator(".map-legend")).to_contain_text(field)
        result = Axe().run(page)
        assert result.violations_count == 0, result.generate_report()


def test_mouse_is_ignored_while_the_map_loads(page: Page) -> None:
    waiting: list[Route] = []
    page.route("**/v1/map*", lambda route: waiting.append(route))
    page.goto("./?view=map")
    expect(page.locator(".map-status")).to_contain_text("Loading")
    hover(page.locator(".map-stage canvas"), (300, 200))
    page.mouse.wheel(0, -100)
    for route in waiting:
        route.continue_()
    expect(page.get_by_role("application", name=f"Map of {len(ITEMS)} images")).to_be_visible()
