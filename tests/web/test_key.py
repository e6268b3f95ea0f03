"""The search page of a service that requires an API key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from app.settings import Settings
from tests.api.small_collection import ITEMS, build_collection
from tests.api.waiting import eventually
from tests.web.conftest import serving

KEY = "0123456789abcdef"
LOADED_IMAGES = "[...document.querySelectorAll('.card img')].filter((image) => image.naturalWidth > 0).length"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    collection = build_collection(tmp_path_factory.mktemp("with-key") / "photographs")
    with serving(Settings(collection=collection, keys=f"read:{KEY}")) as address:
        yield address


def test_page_prompts_for_key_and_loads_images_with_it(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    dialog = page.get_by_role("dialog", name="This service requires an API key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("API key").fill("a wrong one")
    dialog.get_by_role("button", name="Continue").click()
    expect(page.locator("#key-detail")).to_contain_text("unknown API key")
    dialog.get_by_label("API key").fill(KEY)
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(".card")).to_have_count(len(ITEMS))
    thumbnails = len(ITEMS) - 1  # one item has none
    eventually(lambda: page.evaluate(LOADED_IMAGES) == thumbnails)
    page.reload()
    expect(page.locator(".card")).to_have_count(len(ITEMS))
    expect(dialog).to_be_hidden()


def test_page_reports_a_missing_key(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    expect(page.get_by_role("dialog", name="This service requires an API key")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#problem")).to_contain_text("enter the key")


def test_page_prompts_once_for_requests_sent_together(context: BrowserContext) -> None:
    page = context.new_page()
    held: list[Route] = []
    page.route("**/v1/items?*", lambda route: held.append(route))  # the request about the collection fails first
    page.goto("/")
    dialog = page.get_by_role("dialog", name="This service requires an API key")
    expect(dialog).to_be_visible()
    eventually(lambda: page.evaluate("1") and bool(held))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    held[0].continue_()
    expect(page.locator("#problem")).to_contain_text("enter the key")
    expect(dialog).to_be_hidden()
