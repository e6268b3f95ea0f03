"""Search by drawing, in Chromium: the panel, the drawing in the URL, and the module that encodes it."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

STATIC = "const strokes = await import(new URL('static/sketch/strokes.js', document.baseURI));"


def canvas_box(page: Page) -> dict[str, float]:
    """Return the place of the canvas, once it stays."""
    page.get_by_role("img", name="Your drawing").hover()
    box = page.get_by_role("img", name="Your drawing").bounding_box()
    assert box is not None
    return dict(box)


def draw(page: Page, *points: tuple[float, float]) -> None:
    """Draw a line through points of the canvas, 0 to 1, by mouse."""
    box = canvas_box(page)
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def href(page: Page) -> str:
    """Return the URL; Playwright's own lags behind the page's history."""
    return str(page.evaluate("location.href"))


def choose(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).check()


def fill_paper(page: Page, color: str) -> None:
    choose(page, "Fill")
    choose(page, color)
    draw(page, (0.05, 0.05))


def pixel(page: Page, x: float, y: float) -> list[int]:
    """Return the colour of the canvas at a point, once it is painted."""
    return page.get_by_role("img", name="Your drawing").evaluate(
        """async (canvas, [x, y]) => {
          await new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)));
          const at = [x, y].map((share) => Math.floor(share * canvas.width));
          return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
        }""",
        [x, y],
    )


def expect_sketch(page: Page, *, present: bool) -> None:
    expect(page.locator(".chip[data-kind=sketch]")).to_have_count(1 if present else 0)
    assert ("sketch=" in href(page)) == present


@pytest.fixture
def sketch(page: Page) -> Page:
    """Return the page with the panel Sketch open."""
    page.get_by_role("button", name="Sketch", exact=True).click()
    page.get_by_role("img", name="Your drawing").wait_for()
    return page


def test_drawing_is_the_query(sketch: Page) -> None:
    fill_paper(sketch, "Red")
    expect_sketch(sketch, present=True)
    expect(sketch.locator(".card").first).to_have_attribute("data-id", "cup/thumbnail")
    expect(sketch.locator(".score").first).to_be_visible()
    fill_paper(sketch, "Blue")
    expect(sketch.locator(".card").first).to_have_attribute("data-id", "space/rocket.jpg")


def test_undo_redo_and_clear(sketch: Page) -> None:
    choose(sketch, "Red")
    draw(sketch, (0.2, 0.2), (0.8, 0.2))
    one = href(sketch)
    draw(sketch, (0.2, 0.7), (0.8, 0.7))
    two = href(sketch)
    assert one != two
    sketch.keyboard.press("Control+z")
    expect(sketch).to_have_url(one)
    sketch.get_by_role("button", name="Redo").click()
    expect(sketch).to_have_url(two)
    sketch.get_by_role("button", name="Clear", exact=True).click()
    expect_sketch(sketch, present=False)
    sketch.get_by_role("button", name="Undo").click()
    expect(sketch).to_have_url(two)
    for _ in range(2):
        sketch.get_by_role("button", name="Undo").click()
    expect_sketch(sketch, present=False)
    expect(sketch.get_by_role("button", name="Undo")).to_be_disabled()


def test_eraser_paints_the_paper(sketch: Page) -> None:
    paper = pixel(sketch, 0.5, 0.5)
    choose(sketch, "Very wide")
    choose(sketch, "Blue")
    draw(sketch, (0.3, 0.5), (0.7, 0.5))
    blue = pixel(sketch, 0.5, 0.5)
    assert blue[2] > 200 > 60 > blue[0]
    choose(sketch, "Eraser")
    draw(sketch, (0.5, 0.3), (0.5, 0.7))
    assert pixel(sketch, 0.5, 0.5) == paper
    assert pixel(sketch, 0.3, 0.5) == blue


def test_fill_fills_the_shape_around_a_point(sketch: Page) -> None:
    paper = pixel(sketch, 0.1, 0.1)
    draw(sketch, (0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7), (0.3, 0.32))
    choose(sketch, "Fill")
    choose(sketch, "Red")
    draw(sketch, (0.5, 0.5))
    assert pixel(sketch, 0.5, 0.5)[0] > 200 > 60 > pixel(sketch, 0.5, 0.5)[1]
    assert pixel(sketch, 0.1, 0.1) == paper
    assert max(pixel(sketch, 0.5, 0.3)) < 60  # the outline stays above


def test_reload_and_back_button_restore_the_drawing(sketch: Page) -> None:
    fill_paper(sketch, "Red")
    one, red = href(sketch), pixel(sketch, 0.5, 0.5)
    fill_paper(sketch, "Blue")
    blue = pixel(sketch, 0.5, 0.5)
    sketch.go_back()
    expect(sketch).to_have_url(one)
    assert pixel(sketch, 0.5, 0.5) == red != blue
    sketch.reload()
    sketch.get_by_role("button", name="Sketch", exact=True).click()
    sketch.get_by_role("img", name="Your drawing").wait_for()
    assert pixel(sketch, 0.5, 0.5) == red
    sketch.get_by_role("button", name="Undo").click()
    expect_sketch(sketch, present=False)


def test_removed_chip_clears_the_canvas(sketch: Page) -> None:
    paper = pixel(sketch, 0.5, 0.5)
    fill_paper(sketch, "Green")
    sketch.get_by_role("button", name="Remove Your drawing from the search").click()
    expect_sketch(sketch, present=False)
    assert pixel(sketch, 0.5, 0.5) == paper


def test_search_follows_while_a_stroke_is_drawn(sketch: Page) -> None:
    fill_paper(sketch, "Yellow")
    choose(sketch, "Pen")
    entries, before = sketch.evaluate("history.length"), href(sketch)
    box = canvas_box(sketch)
    sketch.mouse.move(box["x"] + 40, box["y"] + 40)
    sketch.mouse.down()
    sketch.mouse.move(box["x"] + 140, box["y"] + 90, steps=5)
    expect(sketch).not_to_have_url(before)
    during = href(sketch)
    sketch.mouse.move(box["x"] + 200, box["y"] + 200, steps=5)
    sketch.mouse.up()
    assert href(sketch) != during
    assert sketch.evaluate("history.length") == entries + 1


def test_touch_draws_without_scrolling(browser: Browser, site: str) -> None:
    phone = browser.new_context(base_url=site, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = phone.new_page()
    page.goto("/")
    page.wait_for_selector(".card")
    page.get_by_role("button", name="Sketch", exact=True).tap()
    page.get_by_role("img", name="Your drawing").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("img", name="Your drawing").evaluate("(canvas) => canvas.scrollIntoView({ block: 'start' })")
    box = canvas_box(page)
    session = phone.new_cdp_session(page)
    for kind, y in (("touchStart", 60), ("touchMove", 120), ("touchMove", 200), ("touchEnd", None)):
        points = [] if y is None else [{"x": box["x"] + 100, "y": box["y"] + y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect_sketch(page, present=True)
    assert max(pixel(page, 100 / box["width"], 120 / box["width"])) < 60
    assert canvas_box(page)["y"] == pytest.approx(box["y"], abs=2)
    phone.close()


def round_trip(page: Page, strokes: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    text, decoded = page.evaluate(
        f"async (drawn) => {{ {STATIC} const text = strokes.encode(drawn); return [text, strokes.decode(text)]; }}",
        strokes,
    )
    return text, decoded


def test_text_restores_strokes_within_the_grid(page: Page) -> None:
    corners = [[0.1, 0.1], [0.9, 0.15], [-0.1, 0.8]]
    strokes = [
        {"color": "#e02020", "width": 0.03, "eraser": False, "fill": True, "points": corners},
        {"color": "#123456", "width": 0.14, "eraser": False, "fill": False, "points": [[0.5, 0.5]]},
        {"color": "#e8e8e8", "width": 0.07, "eraser": True, "fill": False, "points": corners[:2]},
    ]
    text, decoded = round_trip(page, strokes)
    assert len(text) < 80
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    for before, after in zip(strokes, decoded, strict=True):
        assert {**after, "width": 0, "points": 0} == {**before, "width": 0, "points": 0}
        assert after["width"] == pytest.approx(before["width"], abs=0.001)
        assert list(chain(*after["points"])) == pytest.approx(list(chain(*before["points"])), abs=0.001)


def test_text_of_a_long_drawing_is_bounded(page: Page) -> None:
    scribble = [[(i * 7919 % 997) / 997, (i * 104729 % 991) / 991] for i in range(6_000)]
    dots = [{"color": "#e02020", "width": 0.01, "points": [[i % 60 / 60, i / 3_600]]} for i in range(3_600)]
    for strokes in ([{"color": "#1a1a1a", "width": 0.01, "points": scribble}], dots):
        text, decoded = round_trip(page, strokes)
        assert 2_000 < len(text) <= 6_000
        assert decoded


def test_damaged_text_is_an_empty_drawing(page: Page) -> None:
    text, _ = round_trip(page, [{"color": "#e02020", "width": 0.03, "points": [[0.1, 0.1], [0.9, 0.9]]}])
    damaged = ["", "%", "A", "ä", text[:-2], "_" + text[1:], text + "A", "A" * 6_001, "Af___________", None]
    found = page.evaluate(
        f"async (texts) => {{ {STATIC} return texts.map((text) => strokes.decode(text).length); }}", damaged
    )
    assert found == [0] * len(damaged)
    page.goto("/?sketch=%25damaged")
    expect(page.locator(".card").first).to_be_visible()
