"""The grid of results: endless scrolling, groups, near-duplicates, selection, and a collection that changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from app.settings import Settings
from tests.api.small_collection import ITEMS, build_collection
from tests.api.waiting import eventually
from tests.web.conftest import serving

COPIES = 14
MANY = {f"{copy:02}/{item}": photograph for copy in range(COPIES) for item, photograph in ITEMS.items()}
PAGE = 48


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_collection(tmp_path_factory.mktemp("many") / "photographs", items=MANY)


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[str]:
    """Return the URL of a service with each of the nine photographs fourteen times."""
    with serving(Settings(collection=root, watch_seconds=0.2)) as address:
        yield address


@pytest.fixture
def results(context: BrowserContext) -> Page:
    """Return the results of a text, with near-duplicates."""
    page = context.new_page()
    page.goto("/?q=red&dup=1")
    expect(page.locator(".card")).to_have_count(PAGE)
    return page


def ids(page: Page) -> list[str]:
    return page.locator(".card").evaluate_all("cards => cards.map((card) => card.dataset.id)")


def scroll_to_end(page: Page) -> None:
    """Scroll until all items are shown."""
    for count in (2 * PAGE, len(MANY)):
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(page.locator(".card")).to_have_count(count)


def test_scrolling_shows_every_result_once(results: Page) -> None:
    scroll_to_end(results)
    assert sorted(ids(results)) == sorted(MANY)
    scores = [float(text) for text in results.locator(".number").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    expect(results.locator("#status")).to_have_text(f"{len(MANY)} images, best first")


def test_start_page_lists_every_item_once_from_anywhere(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    expect(page.locator(".card")).to_have_count(PAGE)
    scroll_to_end(page)
    assert sorted(ids(page)) == sorted(MANY)


def test_way_back_and_reload_keep_the_place(results: Page) -> None:
    scroll_to_end(results)
    results.evaluate("scrollTo(0, 2000)")
    results.wait_for_timeout(300)  # the place is noted shortly after the scrolling ends
    results.get_by_role("link", name="More like this: a cat", exact=True).nth(6).click()
    expect(results.locator("#chips .chip")).to_have_count(1)
    expect(results.locator(".card")).to_have_count(PAGE)
    assert results.evaluate("scrollY") == 0
    results.go_back()
    expect(results.locator(".card")).to_have_count(len(MANY))
    assert results.evaluate("scrollY") == 2000
    results.reload()
    expect(results.locator(".card")).to_have_count(len(MANY))
    results.wait_for_function("() => Math.abs(scrollY - 2000) < 60")  # lines above the results may appear later


def test_near_duplicates_are_collapsed_and_can_be_shown(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/?q=red")
    hidden = page.locator("#collapsed")
    expect(hidden).to_contain_text("near-duplicates hidden")
    shown = page.locator(".card").count()
    assert shown < len(ITEMS)
    badges = [int(text.removeprefix("+")) for text in page.locator(".duplicates").all_inner_texts()]
    assert shown + sum(badges) == len(MANY)
    expect(hidden).to_contain_text(str(sum(badges)))
    page.get_by_role("button", name="Show them").click()
    expect(page.locator(".card")).to_have_count(PAGE)
    page.get_by_role("button", name="Remove the filter: with near-duplicates").click()
    expect(page.locator(".card")).to_have_count(shown)


def test_groups_have_headings_and_can_be_opened(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/?q=red&dup=1&group=caption")
    expect(page.locator("h2.group").first).to_be_visible()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    headings = page.locator("h2.group")
    captions = {caption for _, caption in ITEMS.values() if caption}
    expect(headings).to_have_count(len(captions) + 1)
    assert {text.removesuffix("Only these").strip() for text in headings.all_inner_texts()} == captions | {"no caption"}
    for name in captions:
        assert page.locator("section", has=page.get_by_role("heading", name=name, exact=False)).count() >= 1
    page.get_by_role("link", name="Only caption a cat", exact=True).click()
    expect(page.locator(".card")).to_have_count(COPIES)
    expect(page.get_by_role("button", name="Remove the filter: caption a cat")).to_be_visible()
    assert set(page.locator(".caption").all_inner_texts()) == {"a cat"}


def test_shift_selects_a_range_that_is_saved_as_csv(results: Page) -> None:
    order = ids(results)
    boxes = results.locator(".card input")
    boxes.nth(1).check()
    results.locator(".image").nth(4).click(modifiers=["Shift"])
    expect(results.locator("#selection-count")).to_have_text("4 selected")
    with results.expect_download() as saved:
        results.get_by_role("button", name="Download ids", exact=True).click()
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0] == "id,score,probability"
    assert [line.split(",")[0] for line in lines[1:]] == order[1:5]
    boxes.nth(2).uncheck()
    expect(results.locator("#selection-count")).to_have_text("3 selected")
    results.locator(".image").nth(1).focus()
    results.keyboard.press("Escape")
    expect(results.locator("#selection")).to_be_hidden()


def test_keyboard_selects_with_space_and_shift(results: Page) -> None:
    results.locator(".image").first.focus()
    results.keyboard.press("Space")
    results.keyboard.press("Shift+ArrowRight")
    results.keyboard.press("Shift+ArrowRight")
    expect(results.locator("#selection-count")).to_have_text("3 selected")
    results.get_by_role("button", name="Less like these").click()
    expect(results.locator("#chips .chip.negative")).to_have_count(3)
    expect(results.locator("#selection")).to_be_hidden()


def test_ids_of_all_shown_images_are_saved(results: Page) -> None:
    with results.expect_download() as saved:
        results.get_by_role("button", name="Download the ids of the images shown").click()
    assert len(Path(saved.value.path()).read_text().splitlines()) == 1 + PAGE


def test_unknown_collection_leads_back_to_the_default_one(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/?q=red&in=removed")
    expect(page.get_by_role("alert")).to_contain_text("removed")
    page.get_by_role("button", name="Show the default collection").click()
    expect(page.locator(".card").first).to_be_visible()


def test_swap_while_scrolling_is_reported_and_loses_nothing(results: Page, root: Path, site: str) -> None:
    build_collection(root, items=dict(list(MANY.items())[:90]))
    collections = f"{site}/v1/collections"
    eventually(lambda: httpx.get(collections).json()["collections"][0]["items"] == 90)
    results.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(results.locator("#more")).to_contain_text("The collection has changed since this search.")
    expect(results.locator(".card")).to_have_count(PAGE)
    results.get_by_role("button", name="Show the new results").click()
    expect(results.locator("#more")).not_to_contain_text("changed")
    results.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(results.locator("#status")).to_have_text("90 images, best first")
