"""Queries of several parts, and what goes wrong with them: files, the network, and a busy service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from app.settings import Settings
from tests.api.small_collection import ITEMS, build_collection
from tests.web.conftest import serving

DROP = """
([count, bytes, type, zone]) => {
  const transfer = new DataTransfer();
  for (let i = 0; i < count; i++) transfer.items.add(new File([new Uint8Array(bytes)], `file-${i}`, { type }));
  for (const name of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(name, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  }
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a service with two collections."""
    folder = tmp_path_factory.mktemp("two")
    first = build_collection(folder / "photographs")
    second = build_collection(folder / "few", items=dict(list(ITEMS.items())[:3]))
    with serving(Settings(collection=first, collections=(second,))) as address:
        yield address


def query(page: Page) -> list[tuple[str, str]]:
    return [(name, value) for name, value in parse_qsl(urlsplit(page.url).query) if name != "dup"]


def add_text(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.get_by_role("button", name="Add another text").click()


def test_texts_become_chips_with_weights(page: Page) -> None:
    add_text(page, "red")
    add_text(page, "-people")
    expect(page.locator("#chips .chip-text")).to_have_text(["red", "people"])
    assert query(page) == [("q", "red"), ("q", "people"), ("w", "-0.5")]
    page.get_by_label("Weight of people: -0.5").click()
    slider = page.get_by_role("slider", name="Weight of people")
    slider.press("ArrowLeft")
    expect(page.get_by_label("Weight of people: -0.6")).to_be_visible()
    expect(slider).to_be_focused()
    with page.expect_response(lambda response: '"weight":-0.7' in (response.request.post_data or "")) as sent:
        page.get_by_role("slider", name="Weight of people").press("ArrowLeft")
    assert sent.value.request.post_data_json["query"] == [
        {"text": "red", "weight": 1},
        {"text": "people", "weight": -0.7},
    ]
    slider.press("Escape")
    expect(slider).to_be_hidden()
    page.get_by_role("button", name="Remove people from the search").click()
    expect(page.get_by_role("searchbox")).to_have_value("red")
    page.go_back()
    expect(page.get_by_label("Weight of people: -0.7")).to_be_visible()


def test_going_back_to_one_text_edits_it_again(page: Page) -> None:
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("searchbox").press("Enter")
    page.get_by_role("button", name="Add another text").click()
    page.get_by_role("searchbox").press_sequentially("-people")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator("#chips .chip-text")).to_have_text(["red", "people"])
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("red")
    expect(page.locator("#chips .chip")).to_have_count(0)


def test_text_image_and_items_are_combined(page: Page, image: Path) -> None:
    page.get_by_role("searchbox").fill("blue")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator("#status")).to_contain_text("best first")
    page.get_by_label("Search by an image file").set_input_files(image)
    with page.expect_response(lambda response: (response.request.post_data or "").count('"weight"') == 3) as sent:
        page.get_by_role("link", name="Less like this: a cat", exact=True).click()
    text, file, item = sent.value.request.post_data_json["query"]
    assert text == {"text": "blue", "weight": 1}
    assert file["image"].startswith("data:image/")
    assert item == {"id": "animals/cat.png", "weight": -0.5}
    expect(page.locator("#chips .chip-text")).to_have_text(["my motorcycle.png", "a cat"])
    expect(page.locator("#chips .negative")).to_have_count(1)


def test_many_dropped_files_are_limited(page: Page) -> None:
    page.evaluate(DROP, [200, 10, "image/png", ""])
    expect(page.locator("#toasts")).to_contain_text("200 images: a query takes at most 8 of them")
    expect(page.locator("#chips .chip")).to_have_count(8)
    expect(page.get_by_role("alert")).to_contain_text("image")


def test_file_that_is_too_large_is_not_sent(page: Page) -> None:
    page.evaluate(DROP, [1, 100 * 2**20, "image/png", ""])
    expect(page.get_by_role("alert")).to_contain_text("file-0 has 100.0 MB, over the limit of 32.0 MB")
    assert query(page) == []


def test_lost_network_is_reported_and_retried(page: Page, context: BrowserContext) -> None:
    context.set_offline(True)
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator("#waiting")).to_contain_text("The service can't be reached.")
    expect(page.locator("#waiting")).to_contain_text("Trying again in")
    context.set_offline(False)
    expect(page.locator("#status")).to_contain_text("best first")
    expect(page.locator("#waiting")).to_be_hidden()


@pytest.mark.parametrize("status", [429, 503])
def test_busy_service_is_asked_again_after_its_wait(page: Page, status: int) -> None:
    problem = {"title": "Busy", "detail": "too many requests", "code": "rate_limited"}

    def refuse_once(route: Route) -> None:
        route.fulfill(status=status, headers={"Retry-After": "1"}, json=problem)

    page.route("**/v1/search", refuse_once, times=1)
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator("#waiting")).to_contain_text("too many requests")
    expect(page.locator("#status")).to_contain_text("best first")
    expect(page.locator("#waiting")).to_be_hidden()


def test_collections_can_be_switched(page: Page) -> None:
    switcher = page.get_by_role("combobox", name="Collection")
    expect(switcher.get_by_role("option")).to_have_text([f"photographs ({len(ITEMS)})", "few (3)"])
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator(".card")).to_have_count(len(ITEMS))
    switcher.select_option("few")
    expect(page.locator(".card")).to_have_count(3)
    assert query(page) == [("q", "red"), ("in", "few")]
    page.go_back()
    expect(page.locator(".card")).to_have_count(len(ITEMS))
    expect(switcher).to_have_value("photographs")


def test_text_drawing_and_filter_are_combined(page: Page) -> None:
    add_text(page, "a dog in snow")
    add_text(page, "-people")
    page.get_by_role("button", name="Sketch", exact=True).click()
    canvas = page.locator("#panel-sketch canvas")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 180, steps=6)
    page.mouse.up()
    expect(page.locator("#chips .chip-text")).to_have_text(["a dog in snow", "people", "Your drawing"])
    page.get_by_role("button", name="Filters", exact=True).click()
    least = page.locator("#panel-filters").get_by_role("spinbutton", name="width").first
    least.fill("500")
    with page.expect_response("**/v1/search") as sent:
        least.press("Enter")
    body = sent.value.request.post_data_json
    assert [next(iter(part)) for part in body["query"]] == ["text", "text", "image"]
    assert [part["weight"] for part in body["query"]] == [1, -0.5, 0.5]
    assert body["filter"] == {"must": [{"field": "width", "range": {"gte": 500}}]}
    expect(page.get_by_role("button", name="Remove the filter: width from 500")).to_be_visible()
    found = sent.value.json()["results"]
    assert 0 < len(found) < len(ITEMS)
    assert all(each["metadata"]["width"] >= 500 for each in found)
