"""Take the screenshots of the docs: `python -m scripts.screenshots http://127.0.0.1:8000`.

The service at the URL has the sample gallery, as `lookalike gallery`, `index` and `map` make it.
"""

from __future__ import annotations

import shutil
import sys
from math import cos, sin, tau
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
_MAX_COLOURS = 256
_BACKGROUND, _CUP, _COFFEE = "brown", "white", "black"


def main(site: str) -> None:
    """Write docs/images/*.png."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860}, base_url=site)
        _take_all(page)
        browser.close()


def _take_all(page: Page) -> None:
    _open(page, "/?q=a+motorcycle+in+a+garage")
    _save(page, "screenshot")
    _open(page, "/?q=a+cat&w=-0.5&like=chelsea.png&w=0.4&q=an+animal")
    _save(page, "page-search")
    _open(page, "/?q=a+cup+of+coffee")
    _draw(page)
    _save(page, "page-sketch")
    _open(page, '/?q=a+rocket&f={"field":"width","range":{"gte":300}}')
    page.get_by_role("button", name="Filters", exact=True).click()
    page.locator("#panel-filters").get_by_text("width").first.wait_for()
    _save(page, "page-filters")
    page.locator(".image").first.click()
    page.get_by_role("heading", name="Similar images").wait_for()
    _save(page, "page-details")
    page.keyboard.press("Escape")
    for box in page.locator(".card input").all()[:8]:
        box.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    _save(page, "page-compare")
    _open(page, "/?view=map")
    _save(page, "page-map")


def _open(page: Page, path: str) -> None:
    page.goto(path)
    page.locator(".card").first.wait_for(state="attached")


def _draw(page: Page) -> None:
    """Draw a cup of coffee from above."""
    page.get_by_role("button", name="Sketch", exact=True).click()
    canvas = page.locator("#panel-sketch canvas")
    canvas.wait_for()
    box = canvas.bounding_box()
    assert box is not None
    center = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.get_by_role("radio", name="Fill").or_(page.get_by_role("button", name="Fill")).first.click()
    for colour, radius in ((_BACKGROUND, 0.49), (_CUP, 0.36), (_COFFEE, 0.24)):
        page.get_by_label(colour, exact=False).first.click()
        _circle(page, center, radius * box["width"])
    page.wait_for_timeout(1500)


def _circle(page: Page, center: tuple[float, float], radius: float) -> None:
    points = [(center[0] + radius * cos(tau * i / 24), center[1] + radius * sin(tau * i / 24)) for i in range(25)]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point)
    page.mouse.up()


def _save(page: Page, name: str) -> None:
    page.wait_for_timeout(1500)  # images and dialogs
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(_MAX_COLOURS).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main(sys.argv[1])
