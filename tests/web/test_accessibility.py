"""axe-core finds no violations in any view of the page, in light and in dark mode."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect


def violations(page: Page) -> str:
    result = Axe().run(page)
    return "" if result.violations_count == 0 else str(result.generate_report())


@pytest.fixture(params=["light", "dark"])
def results(context: BrowserContext, request: pytest.FixtureRequest) -> Page:
    page = context.new_page()
    page.emulate_media(color_scheme=request.param, reduced_motion="reduce")
    page.goto("/?q=red&q=people&w=-0.5&dup=1")
    expect(page.locator(".card").first).to_be_visible()
    return page


def test_start_page_has_no_violations(page: Page) -> None:
    assert violations(page) == ""


def test_results_have_no_violations(results: Page) -> None:
    results.get_by_role("checkbox", name="Select: a cat").check()
    results.get_by_role("checkbox", name="Select: an astronaut").check()
    assert violations(results) == ""
    results.get_by_role("button", name="Compare", exact=True).click()
    expect(results.get_by_role("dialog")).to_contain_text("cosine", ignore_case=True)
    assert violations(results) == ""


def test_panels_have_no_violations(results: Page) -> None:
    results.get_by_role("button", name="Sketch", exact=True).click()
    expect(results.locator("#panel-sketch canvas")).to_be_visible()
    assert violations(results) == ""
    results.get_by_role("button", name="Filters", exact=True).click()
    expect(results.locator("#panel-filters").get_by_text("width")).to_be_visible()
    assert violations(results) == ""


def test_details_have_no_violations(results: Page) -> None:
    results.get_by_role("link", name="a cat", exact=True).click()
    expect(results.get_by_role("dialog")).to_contain_text("a cat")
    assert violations(results) == ""
