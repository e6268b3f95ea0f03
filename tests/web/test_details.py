"""The detail view of the search page."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from tests.api.small_collection import ITEMS, PHOTOGRAPHS, WITHOUT_THUMBNAIL

ORDER = list(ITEMS)
ORIGINAL = "v1/item/original?id=left.png"


def query_of(page: Page) -> dict[str, list[str]]:
    query = parse_qs(urlsplit(page.url).query)
    query.pop("dup", None)  # the start page of the tests shows near-duplicates
    return query


def open_item(page: Page, item_id: str) -> Locator:
    page.locator(".card .image").nth(ORDER.index(item_id)).click()
    dialog = page.locator(".item-details")
    expect(dialog.locator("dd").first).to_have_text(item_id)
    return dialog


def add_to_item(page: Page, changes: dict[str, object]) -> None:
    """Change the response for an item."""

    def change(route: Route) -> None:
        item = route.fetch().json()
        route.fulfill(json={**item, **changes, "metadata": {**item["metadata"], **changes.get("metadata", {})}})  # type: ignore[dict-item]

    page.route("**/v1/item?*", change)


def test_details_show_image_metadata_and_similar(page: Page) -> None:
    dialog = open_item(page, "left.png")
    expect(page.get_by_role("dialog", name="a motorcycle")).to_be_visible()
    rows = dict(zip(dialog.locator("dt").all_inner_texts(), dialog.locator("dd").all_inner_texts(), strict=True))
    assert rows == {"id": "left.png", "path": "left.png", "caption": "a motorcycle", "width": "741", "height": "500"}
    expect(dialog.locator(".details-similar a")).to_have_count(len(ITEMS) - 1)
    expect(dialog.locator(".details-similar a").first).to_have_attribute("aria-label", "Details: the same motorcycle")
    dialog.locator(".details-similar a").first.click()
    expect(page.get_by_role("dialog", name="the same motorcycle")).to_be_visible()
    assert query_of(page) == {"item": ["right.png"]}
    page.go_back()
    expect(page.get_by_role("dialog", name="a motorcycle", exact=True)).to_be_visible()


def test_result_shows_its_score(page: Page) -> None:
    page.goto("/?q=red&item=space%2Frocket.jpg")
    expect(page.locator(".details-match")).to_have_text(re.compile(r"score -?0\.\d{4}$"))


def test_escape_returns_to_the_card(page: Page) -> None:
    dialog = open_item(page, "animals/cat.png")
    assert page.evaluate("document.activeElement.closest('.item-details') !== null")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert query_of(page) == {}
    assert page.evaluate("document.activeElement.closest('.card').dataset.id") == "animals/cat.png"
    page.go_back()
    expect(page.locator(".card").first).to_be_visible()
    expect(dialog).to_be_hidden()


def test_arrow_keys_and_buttons_change_the_image(page: Page) -> None:
    dialog = open_item(page, ORDER[0])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("dd").first).to_have_text(ORDER[1])
    assert query_of(page) == {"item": [ORDER[1]]}
    dialog.get_by_role("button", name="Next image").click()
    expect(dialog.locator("dd").first).to_have_text(ORDER[2])
    dialog.get_by_role("button", name="Previous image").click()
    expect(dialog.locator("dd").first).to_have_text(ORDER[1])
    page.go_back()
    expect(dialog).to_be_hidden()


def test_end_of_the_results_is_marked(page: Page) -> None:
    dialog = open_item(page, ORDER[-1])
    forward = dialog.get_by_role("button", name="Next image")
    expect(forward).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("dd").first).to_have_text(ORDER[-1])


@pytest.mark.parametrize(("button", "weight"), [("More like this", None), ("Less like this", ["-0.5"])])
def test_item_becomes_a_part_of_the_query(page: Page, button: str, weight: list[str] | None) -> None:
    page.goto("/?q=red&item=left.png")
    dialog = page.locator(".item-details")
    dialog.get_by_role("button", name=button).click()
    expect(dialog).to_be_hidden()
    query = query_of(page)
    assert (query["q"], query["like"], query.get("w"), query.get("item")) == (["red"], ["left.png"], weight, None)


def test_link_and_id_can_be_copied(page: Page, site: str) -> None:
    dialog = open_item(page, "cup/thumbnail")
    for button, text in (("Copy id", "cup/thumbnail"), ("Copy link", f"{site}/?item=cup%2Fthumbnail")):
        dialog.get_by_role("button", name=button).click()
        expect(dialog.get_by_role("status")).to_contain_text("clipboard")
        assert page.evaluate("navigator.clipboard.readText()") == text


def test_compare_selects_the_item(page: Page) -> None:
    dialog = open_item(page, "left.png")
    button = dialog.get_by_role("button", name="Compare")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(page.locator("#selection-count")).to_have_text("1 selected")


def test_unknown_item_is_explained(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/?item=gone.png")
    dialog = page.get_by_role("dialog", name="This image is no longer in the collection")
    expect(dialog.get_by_role("alert")).to_contain_text("No item has the id “gone.png”")
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(".card")).to_have_count(len(ITEMS))


def test_original_replaces_the_thumbnail(page: Page) -> None:
    add_to_item(page, {"original_url": ORIGINAL})
    page.route("**/v1/item/original?*", lambda route: route.fulfill(path=PHOTOGRAPHS / "motorcycle_left.png"))
    dialog = open_item(page, "left.png")
    expect(dialog.locator(".details-image img")).to_have_attribute("src", re.compile("original"))
    assert dialog.locator(".details-image img").evaluate("(image) => image.naturalWidth") == 741
    expect(dialog.get_by_role("link", name="Open original")).to_have_attribute("href", ORIGINAL)


def test_original_without_preview_keeps_the_thumbnail(page: Page) -> None:
    add_to_item(page, {"original_url": ORIGINAL})
    page.route("**/v1/item/original?*", lambda route: route.fulfill(body=b"raw", content_type="image/x-canon-cr3"))
    with page.expect_response("**/v1/item/original?*"):
        dialog = open_item(page, "left.png")
    expect(dialog.locator(".details-image img")).to_have_attribute("src", re.compile("thumbnail"))


def test_original_is_opened_with_the_api_key(browser: Browser, site: str) -> None:
    # A context of its own: the browser's viewer of images logs that the policy forbids its inline styles.
    page = browser.new_page(base_url=site)
    page.goto("/")
    page.wait_for_selector(".card")
    sent: list[str | None] = []

    def answer(route: Route) -> None:
        sent.append(route.request.headers.get("authorization"))
        route.fulfill(path=PHOTOGRAPHS / "motorcycle_left.png")

    add_to_item(page, {"original_url": ORIGINAL})
    page.context.route("**/v1/item/original?*", answer)
    page.evaluate("sessionStorage.setItem('lookalike-key', '0123456789abcdef')")
    dialog = open_item(page, "left.png")
    with page.expect_popup() as popup:
        dialog.get_by_role("link", name="Open original").click()
    popup.value.wait_for_url(re.compile("^blob:"), wait_until="commit")
    assert set(sent) == {"Bearer 0123456789abcdef"}
    page.context.close()


def test_values_of_every_type_are_text(page: Page) -> None:
    values = {
        "tags": ["dog", "snow"],
        "place": {"city": "Oslo", "at": [59.9, 10.7]},
        "taken": "2024-05-01T10:30:00Z",
        "link": "javascript:alert(1)",
        "rating": 0.25,
        "text": "long " * 400,
    }
    add_to_item(page, {"metadata": values})
    dialog = open_item(page, "left.png")
    facts = dialog.locator(".metadata > dd")
    expect(facts.nth(5)).to_have_text("dog, snow")
    assert dialog.locator(".metadata > dt").all_inner_texts()[5:] == list(values)
    expect(facts.nth(6)).to_contain_text("Oslo")
    expect(facts.nth(6)).to_contain_text("59.9, 10.7")
    assert facts.nth(7).inner_text() == "2024-05-01 10:30:00Z"
    assert facts.nth(8).inner_html() == "javascript:alert(1)"
    expect(facts.nth(9)).to_have_text("0.25")
    facts.nth(10).get_by_role("button", name="Show all").click()
    assert facts.nth(10).inner_text().count("long") == 400


def test_other_modules_can_add_buttons(page: Page) -> None:
    page.evaluate(
        """document.addEventListener("details", ({ detail: { record, slot } }) => {
          const button = document.createElement("button");
          button.textContent = `Edit ${record.id}`;
          slot.append(button);
        })"""
    )
    dialog = open_item(page, ORDER[0])
    expect(dialog.locator("#details-actions button")).to_have_text([f"Edit {ORDER[0]}"])
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("#details-actions button")).to_have_text([f"Edit {ORDER[1]}"])


def test_details_fit_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    dialog = open_item(page, WITHOUT_THUMBNAIL)
    expect(dialog.locator(".details-image")).to_have_text("a man with a camera has no preview.")
    box = dialog.bounding_box()
    assert box == {"x": 0, "y": 0, "width": 390, "height": 844}
    assert dialog.evaluate("(element) => element.scrollWidth") == 390
