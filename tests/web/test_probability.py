"""Probabilities on the search page, and the line above results that hardly match."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.settings import Settings
from lookalike.calibration import Calibration
from lookalike.collection_calibration import CALIBRATION_FILE, collection_calibration_text
from lookalike.encoders.fake import FakeEncoder
from lookalike.match_calibration import MatchCalibration
from tests.api.small_collection import ITEMS, build_collection
from tests.web.conftest import serving

NO_MATCH = "Nothing in this collection matches well. These are the closest images."
RESULT = {"id": "x", "metadata": {"caption": "x"}, "thumbnail_url": None}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a service in which images match from a score of 0.8, and texts never do."""
    root = build_collection(tmp_path_factory.mktemp("web") / "photographs")
    images, texts = (MatchCalibration(-20.0 * at, 20.0) for at in (0.8, 1.1))
    calibration = Calibration(text_search=texts, image_search=images)
    text = collection_calibration_text(calibration, FakeEncoder.spec.identity)
    (root / CALIBRATION_FILE).write_text(text)
    with serving(Settings(collection=root)) as address:
        yield address


def percentages(page: Page) -> list[int]:
    return [int(text.removesuffix(" %")) for text in page.locator(".number").all_inner_texts()]


def bar_shares(page: Page) -> list[float]:
    """Return the filled share of each bar, in percent."""
    share = "(fill) => 100 * fill.offsetWidth / fill.parentElement.offsetWidth"
    return [fill.evaluate(share) for fill in page.locator(".fill").all()]


def respond(page: Page, **response: Any) -> None:
    """Let searches by text get this response; show it."""
    body = {"took_ms": {"total": 1.0}, **response}
    page.route("**/v1/search", lambda route: route.fulfill(json=body))
    page.get_by_role("searchbox").fill("anything")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator("#grid")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#timings")).to_contain_text("1.0 ms")


def test_bar_and_number_are_the_probability(page: Page, image: Path) -> None:
    page.get_by_label("Search by an image file").set_input_files(image)
    expect(page.locator(".number").first).to_have_text("98 %")
    shown = percentages(page)
    assert len(shown) == len(ITEMS)
    assert shown == sorted(shown, reverse=True)
    assert bar_shares(page) == pytest.approx(shown, abs=1.5)
    line = page.locator(".score").first
    expect(line).to_have_attribute("title", "Probability of a match 98 %. Cosine similarity 1.0000")
    expect(page.locator("#no-match")).to_have_text("")
    page.get_by_role("link", name="a motorcycle", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("98 %")


def test_query_without_a_match_says_so_in_a_status(page: Page, image: Path) -> None:
    page.get_by_role("searchbox").fill("asdfgh")
    page.get_by_role("searchbox").press("Enter")
    status = page.get_by_role("status").filter(has_text=NO_MATCH)
    expect(status).to_be_visible()
    assert max(percentages(page)) < 50
    assert max(bar_shares(page)) < 51
    box, grid = status.bounding_box(), page.locator("#grid").bounding_box()
    assert box is not None
    assert grid is not None
    assert box["y"] + box["height"] <= grid["y"]
    page.get_by_label("Search by an image file").set_input_files(image)
    expect(page.locator("#no-match")).to_have_text("")
    page.get_by_role("link", name="Lookalike: start page").click()
    expect(page.locator("#no-match")).to_have_text("")


def test_result_without_a_probability_has_a_score_and_no_bar(page: Page) -> None:
    respond(page, results=[{**RESULT, "score": 0.3471, "probability": None}], no_match=None)
    expect(page.locator(".number")).to_have_text("0.347")
    expect(page.locator(".score")).to_have_attribute("title", "Cosine similarity 0.3471")
    expect(page.locator(".track")).to_have_count(0)
    expect(page.locator("#no-match")).to_have_text("")


def test_no_results_are_no_closest_images(page: Page) -> None:
    respond(page, results=[], no_match=True)
    expect(page.locator("#status")).to_have_text("No images found")
    expect(page.locator("#no-match")).to_have_text("")


def test_failed_search_removes_the_line(page: Page) -> None:
    respond(page, results=[{**RESULT, "score": 0.1, "probability": 0.01}], no_match=True)
    expect(page.locator("#no-match")).to_have_text(NO_MATCH)
    page.unroute("**/v1/search")
    page.route("**/v1/search", lambda route: route.fulfill(status=502, body="bad gateway"))
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("502")
    expect(page.locator("#no-match")).to_have_text("")
