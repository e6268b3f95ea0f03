"""The comparison of images on the search page, and its heat map."""

from __future__ import annotations

import re
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from lookalike.images import EXTENSIONS
from tests.api.small_collection import ITEMS, PHOTOGRAPHS

OPEN = """async (ids) => {
  const [compare, results] = await Promise.all([import("./static/compare/compare.js"), import("./static/results.js")]);
  await compare.open(ids.map(results.recordOf));
}"""


def compare(page: Page, *ids: str) -> Locator:
    """Open the comparison of some items."""
    page.evaluate(OPEN, list(ids))
    return page.get_by_role("dialog", name="Compare")


def facts(dialog: Locator) -> dict[str, str]:
    names, values = dialog.locator(".compare-verdict dt"), dialog.locator(".compare-verdict dd")
    return dict(zip(names.all_inner_texts(), values.all_inner_texts(), strict=True))


def test_selected_images_can_be_compared(page: Page) -> None:
    page.get_by_label("Select: a motorcycle", exact=True).check()
    page.get_by_label("Select: the same motorcycle").check()
    page.locator("#selection-compare").click()
    dialog = page.get_by_role("dialog", name="Compare")
    expect(dialog.get_by_role("status").last).to_contain_text("Similar")
    shown = facts(dialog)
    cosine, distance = float(shown["cosine"]), float(shown["distance"].split()[0])
    assert 0.9 < cosine < 1
    assert distance == pytest.approx(1 - cosine, abs=0.0011)
    assert "≤ threshold" in shown["distance"]
    expect(dialog.locator(".heat-map")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_different_images_are_not_similar(page: Page) -> None:
    dialog = compare(page, "cup/thumbnail", "space/rocket.jpg")
    expect(dialog.locator(".compare-verdict strong")).to_have_text("Not similar")
    assert "> threshold" in facts(dialog)["distance"]


def test_image_file_can_be_compared(page: Page, image: Path) -> None:
    dialog = compare(page, "left.png")
    expect(dialog).to_contain_text("Add an image file, or select a second image")
    dialog.get_by_label("Add image files").set_input_files(image)
    expect(dialog.locator(".compare-verdict strong")).to_have_text("Similar")
    assert facts(dialog)["cosine"] == "1.000"
    assert dialog.locator("figcaption").all_inner_texts() == ["a motorcycle", "my motorcycle.png"]
    dialog.get_by_label("Remove: my motorcycle.png").click()
    expect(dialog).to_contain_text("Add an image file, or select a second image")


def test_file_without_preview_is_compared(page: Page, tmp_path: Path) -> None:
    photo = tmp_path / "IMG_0001.HEIC"
    pillow_heif.from_pillow(Image.open(PHOTOGRAPHS / "motorcycle_left.png")).save(photo)
    dialog = compare(page, "left.png")
    assert set((dialog.get_by_label("Add image files").get_attribute("accept") or "").split(",")) == {
        "image/*",
        *EXTENSIONS,
    }
    dialog.get_by_label("Add image files").set_input_files(photo)
    expect(dialog.locator(".compare-verdict strong")).to_have_text("Similar")
    expect(dialog.locator("figure").nth(1)).to_have_text(re.compile("no preview.*IMG_0001.HEIC"))


def test_files_that_are_no_images_are_named(page: Page, image: Path, tmp_path: Path) -> None:
    text, corrupt = tmp_path / "notes.txt", tmp_path / "broken.png"
    text.write_text("no image")
    corrupt.write_bytes(b"\x89PNG\r\n\x1a\n no image at all")
    dialog = compare(page, "left.png", "right.png")
    dialog.get_by_label("Add image files").set_input_files(text)
    expect(dialog.locator(".compare-note")).to_contain_text("notes.txt is text/plain, not an image")
    dialog.get_by_label("Add image files").set_input_files([corrupt, image])
    expect(dialog.locator(".compare-note")).to_contain_text("broken.png is left out: ")
    expect(dialog.locator(".heat-table th[scope=row] img")).to_have_count(3)


def test_heat_map_shows_each_pair(page: Page) -> None:
    dialog = compare(page, "space/rocket.jpg", "cup/thumbnail", "right.png")
    cells = dialog.get_by_role("gridcell")
    expect(cells).to_have_count(9)
    numbers = [float(text) for text in cells.all_inner_texts()]
    rows = [numbers[:3], numbers[3:6], numbers[6:]]
    assert [rows[i][i] for i in range(3)] == [1.0, 1.0, 1.0]
    assert rows == [list(column) for column in zip(*rows, strict=True)]
    assert rows[0][2] > rows[0][1]
    expect(dialog.locator("td.similar")).to_have_count(7)
    cells.nth(1).hover()
    expect(dialog.locator(".heat-readout")).to_have_text(
        re.compile(r"^a rocket on its pad and a cup of coffee: not similar, cosine 0\.\d{3}")
    )
    cells.nth(5).click()
    assert dialog.locator("figcaption").all_inner_texts() == ["a cup of coffee", "the same motorcycle"]


def test_heat_map_is_used_by_keyboard(page: Page) -> None:
    dialog = compare(page, "left.png", "animals/cat.png", "right.png")
    dialog.get_by_label("Group similar").focus()
    focused = "document.activeElement.getAttribute('aria-label')"
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "gridcell":
            break
    assert page.evaluate(focused).startswith("a motorcycle and a motorcycle: similar, cosine 1.000")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert page.evaluate(focused).startswith("a cat and the same motorcycle: similar")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused).startswith("a cat and the same motorcycle")
    page.keyboard.press("Enter")
    assert dialog.locator("figcaption").all_inner_texts() == ["a cat", "the same motorcycle"]
    page.keyboard.press("Delete")
    expect(dialog.locator(".heat-map")).to_have_count(0)
    assert dialog.locator("figcaption").all_inner_texts() == ["the same motorcycle", "a motorcycle"]


def test_similar_images_can_be_grouped(page: Page) -> None:
    dialog = compare(page, "left.png", "animals/cat.png", "space/rocket.jpg", "right.png")
    expect(dialog.get_by_role("gridcell")).to_have_count(16)
    dialog.get_by_label("Group similar").check()
    rows = dialog.locator("th[scope=row] img").evaluate_all("images => images.map((image) => image.alt)")
    assert abs(rows.index("a motorcycle") - rows.index("the same motorcycle")) == 1
    dialog.get_by_label("Group similar").uncheck()
    expect(dialog.locator("th[scope=row] img").nth(1)).to_have_attribute("alt", "a cat")


def test_removed_image_needs_no_new_request(page: Page) -> None:
    dialog = compare(page, "left.png", "animals/cat.png", "right.png", "cup")
    expect(dialog.get_by_role("gridcell")).to_have_count(16)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    dialog.locator("table").get_by_label("Remove: a cat").click()
    expect(dialog.get_by_role("gridcell")).to_have_count(9)
    assert [url for url in requests if "similarity" in url] == []


def test_at_most_a_hundred_images_are_compared(page: Page) -> None:
    page.route(
        "**/v1/similarity/matrix",
        lambda route: route.fulfill(json={"cosine": [[0.5] * 100] * 100, "probability": [[None] * 100] * 100}),
    )
    page.evaluate(
        """async () => {
          const compare = await import("./static/compare/compare.js"), results = await import("./static/results.js");
          const record = results.recordOf("left.png");
          await compare.open(Array.from({ length: 103 }, () => record));
        }"""
    )
    dialog = page.get_by_role("dialog", name="Compare")
    expect(dialog.get_by_role("gridcell")).to_have_count(10_000)
    expect(dialog.locator(".compare-note")).to_have_text("At most 100 images are compared. The last 3 are left out.")


def test_failed_comparison_is_explained(page: Page) -> None:
    problem = {"title": "Bad gateway", "detail": "the service broke"}
    page.route("**/v1/similarity/matrix", lambda route: route.fulfill(status=502, json=problem))
    dialog = compare(page, "left.png", "right.png")
    expect(dialog.locator(".compare-note")).to_have_text("Not compared: the service broke")
    expect(dialog.locator(".compare-verdict")).not_to_contain_text("Comparing")


def test_comparison_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    dialog = compare(page, *ITEMS)
    expect(dialog.get_by_role("gridcell")).to_have_count(len(ITEMS) ** 2)
    assert dialog.bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}
    assert dialog.locator(".compare-body").evaluate("(body) => body.scrollWidth - body.clientWidth") == 0


def test_files_over_the_limit_together_are_sent_smaller(page: Page, tmp_path: Path) -> None:
    large = [tmp_path / name for name in ("one.jpg", "two.jpg")]
    for path in large:
        path.write_bytes((PHOTOGRAPHS / "rocket.jpg").read_bytes() + b"\0" * 1_500_000)
    dialog = compare(page, "space/rocket.jpg")
    dialog.get_by_label("Add image files").set_input_files(large)
    expect(dialog.get_by_role("gridcell")).to_have_count(9)
    assert min(float(text) for text in dialog.get_by_role("gridcell").all_inner_texts()) > 0.98
