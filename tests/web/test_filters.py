"""The panel of filters, over columns of each type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pyarrow as pa
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from app.settings import Settings
from tests.api.small_collection import ITEMS, build_collection
from tests.web.conftest import serving

_SIZE = len(ITEMS)
_NAN, _INFINITY = float("nan"), float("inf")
HOSTILE = "<img src=x onerror=alert(1)>"
COLUMNS = {
    "format": ["PNG", "PNG", "JPEG", "PNG", "PNG", "GIF", "JPEG", "PNG", HOSTILE],
    "tags": [["pet", "fur"], ["pet"], ["sky"], [], ["cup"], ["cup", "pet"], None, ["sky"], ["sky"]],
    "sale": [True, False, None, True, True, False, None, True, False],
    "price": [5.0, 10.0, 12.5, _NAN, _INFINITY, -0.0, 20.0, 40.0, None],
    "money": pa.array([Decimal(n).scaleb(-2) for n in range(1000, 1900, 100)], pa.decimal128(6, 2)),
    "hash": pa.array([2**64 - 1, 0, 1, 2, 3, 4, 5, 6, 7], pa.uint64()),
    "rating": pa.array([1, 2, 3, 1, 2, 3, 1, 2, 3], pa.int8()),
    "codes": [[7, 8], [7], [8], [7], [], None, [9], [9], [7]],
    "added": [date(2026, 1, day) for day in (1, 2, 3, 10, 11, 12, 20, 30, 31)],
    "seen": pa.array([datetime(2026, 1, 1, 9, minute) for minute in range(0, 45, 5)], pa.timestamp("us", "UTC")),
    "at": [time(hour) for hour in range(9, 18)],
    "took": [timedelta(seconds=seconds) for seconds in range(_SIZE)],
    "iso": pa.array([{"value": 100 * i} if i else None for i in range(_SIZE)]),
    "blob": [b"x", None, *[b"y"] * 7],
    "nothing": pa.nulls(_SIZE),
    "same": ["one"] * _SIZE,
    "nan": [_NAN] * _SIZE,
    "labels": [[f"label {n}" for n in range(i, 130, 1 + i % 3)] for i in range(_SIZE)],
    "word": [f"word {i // 2}" for i in range(_SIZE)],
}


LABELS = [
    ({"field": "width", "range": {"gte": 300, "lte": 800}}, "width 300 to 800"),
    ({"field": "width", "range": {"gt": 1299}}, "width above 1299"),
    ({"field": "size", "range": {"lt": 12345.5}}, "size below 12,345.5"),
    ({"field": "hash", "range": {"gte": "18446744073709551615"}}, "hash from 18,446,744,073,709,551,615"),
    ({"field": "zero", "equals": -0.0}, "zero 0"),
    ({"field": "tiny", "range": {"lte": 1e-9}}, "tiny up to 1E-9"),
    ({"field": "format", "in": ["PNG", "JPEG"]}, "format PNG or JPEG"),
    ({"field": "tag", "in": list("abcdef")}, "tag a, b, c or 3 more"),
    ({"field": "sale", "equals": True}, "sale yes"),
    ({"field": "price", "exists": False}, "no price"),
    ({"field": "price", "exists": True}, "any price"),
    ({"field": "path", "prefix": "animals/"}, "path starts with \u201canimals/\u201d"),
    ({"field": "added", "range": {"gte": "2026-01-01"}}, "added from 2026-01-01"),
    ({"field": "added", "range": {"gte": "2026-01-01", "lt": "2026-02-01"}}, "added 2026-01-01 to 2026-01-31"),
    ({"field": "seen", "range": {"lt": "2026-01-01T09:30:00Z"}}, "seen before 2026-01-01 09:30"),
    ({"should": [{"field": "a", "equals": 1}]}, '{"should":[{"field":"a","equals":1}]}'),
    ({"field": "x", "range": "y"}, '{"field":"x","range":"y"}'),
    ({"field": "x", "in": 5}, '{"field":"x","in":5}'),
    ({"field": 5}, '{"field":5}'),
    (None, "null"),
]
BOUNDS: list[tuple[str, tuple[str, str], dict[str, Any], int]] = [
    ("price", ("5", "20"), {"gte": 5, "lte": 20}, 4),
    ("price", ("20", "5"), {"gte": 5, "lte": 20}, 4),
    ("price", ("12.5", ""), {"gte": 12.5}, 4),
    ("money", ("", "12.00"), {"lte": 12}, 3),
    ("hash", ("18446744073709551615", ""), {"gte": "18446744073709551615"}, 1),
    ("took", ("7", ""), {"gte": 7}, 2),
    ("at", ("", "10:00:00"), {"lte": "10:00:00"}, 2),
    ("added", ("2026-01-02", "2026-01-20"), {"gte": "2026-01-02", "lt": "2026-01-21"}, 6),
    ("seen", ("", "2026-01-01T09:10:00"), {"lt": "2026-01-01T09:10:01Z"}, 3),
    ("iso.value", ("", "300"), {"lte": 300}, 3),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a service with nine photographs that have the columns."""
    root = build_collection(tmp_path_factory.mktemp("web") / "photographs", columns=COLUMNS)
    with serving(Settings(collection=root)) as address:
        yield address


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """Return the page with its panel of filters."""
    return opened(context)


def opened(context: BrowserContext, *filters: Any) -> Page:
    page = context.new_page()
    page.goto("/?" + "&".join(f"f={quote(json.dumps(each))}" for each in filters))
    page.get_by_role("button", name="Filters", exact=True).click()
    page.wait_for_selector(".field")
    return page


def filters_of(page: Page) -> list[Any]:
    return [json.loads(each) for each in parse_qs(urlsplit(page.url).query).get("f", [])]


def group(page: Page, name: str) -> Locator:
    """Return a column's group, opened."""
    found = page.locator(".field").filter(has=page.locator("summary .name", has_text=re.compile(f"^{name}$")))
    if found.get_attribute("open") is None:
        found.locator("summary").click()
    return found


def expect_count(page: Page, count: int) -> None:
    expected = f"{_SIZE} images" if count == _SIZE else f"{count} of {_SIZE} images"
    expect(page.locator(".count-line")).to_have_text(expected)
    expect(page.locator(".card")).to_have_count(count)


def fill(inputs: Locator, *values: str) -> None:
    """Type into inputs as one who leaves each, so that the panel waits no longer."""
    for place, value in zip(inputs.all(), values, strict=True):
        place.fill(value)
        place.dispatch_event("change")


def test_labels_name_conditions(page: Page) -> None:
    script = "async (all) => { const m = await import('./static/filters/conditions.js'); return all.map(m.label); }"
    assert page.evaluate(script, [condition for condition, _ in LABELS]) == [text for _, text in LABELS]


def test_values_are_counted_under_other_conditions(page: Page) -> None:
    tags, sale = group(page, "tags").locator(".values li"), group(page, "sale").locator(".values li")
    expect(tags).to_have_text(["pet3", "sky3", "cup2", "fur1"])
    page.get_by_role("checkbox", name="pet").check()
    expect(sale).to_have_text(["no2", "yes1"])
    expect(tags).to_have_text(["pet3", "sky3", "cup2", "fur1"])
    expect_count(page, 3)
    page.get_by_role("checkbox", name="sky").check()
    expect(page.get_by_role("checkbox", name="sky")).to_be_focused()
    assert filters_of(page) == [{"field": "tags", "in": ["pet", "sky"]}]
    expect_count(page, 6)
    page.get_by_role("button", name="Remove the filter: tags pet or sky").click()
    expect(page.get_by_role("checkbox", name="pet")).not_to_be_checked()
    expect_count(page, _SIZE)


def test_columns_that_tell_nothing_apart_are_left_out(page: Page) -> None:
    names = page.locator(".field .name").all_inner_texts()
    assert names[:2] == ["tags", "sale"]
    assert not {"nothing", "same", "nan"} & set(names)
    assert set(COLUMNS) - set(names) == {"nothing", "same", "nan"}
    assert {"id", "path", "caption", "width", "height", "iso.value"} <= set(names)


def test_values_are_no_html(page: Page) -> None:
    group(page, "format").get_by_label(HOSTILE).check()
    expect_count(page, 1)
    assert page.locator(".filters img, #filter-chips img").count() == 0
    assert filters_of(page) == [{"field": "format", "equals": HOSTILE}]


def test_typed_bounds_filter(page: Page) -> None:
    for name, typed, condition, count in BOUNDS:
        fill(group(page, name).locator(".bounds input"), *typed)
        expect_count(page, count)
        assert filters_of(page) == [{"field": name, "range": condition}]
        page.get_by_role("button", name="Clear filters").click()


def test_slider_is_moved_by_keys_as_one_step_back(page: Page) -> None:
    slider = group(page, "rating").get_by_role("slider", name="rating from")
    slider.press("ArrowRight")
    expect_count(page, 6)
    slider.press("ArrowRight")
    expect_count(page, 3)
    assert filters_of(page) == [{"field": "rating", "range": {"gte": 3}}]
    page.go_back()
    expect_count(page, _SIZE)
    expect(slider).to_have_value("0")


def test_dragging_over_histogram_is_one_step_back(page: Page) -> None:
    box = group(page, "added").locator(".histogram").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 20)
    page.mouse.down()
    for share in (0.9, 0.8, 0.6):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 20, steps=3)
        page.wait_for_timeout(200)  # longer than the panel waits before it filters
    page.mouse.up()
    expect_count(page, 3)
    (condition,) = filters_of(page)
    assert list(condition["range"]) == ["gte"]
    page.go_back()
    expect_count(page, _SIZE)
    assert filters_of(page) == []


def test_prefix_and_presence_filter(page: Page) -> None:
    group(page, "path").get_by_role("searchbox").fill("animals/")
    expect_count(page, 2)
    group(page, "sale").get_by_role("button", name="No value").click()
    assert filters_of(page) == [{"field": "path", "prefix": "animals/"}, {"field": "sale", "exists": False}]
    expect_count(page, 0)
    page.get_by_role("button", name="Clear filters").click()
    expect_count(page, _SIZE)
    expect(group(page, "path").get_by_role("searchbox")).to_have_value("")


def test_many_values_are_searched(page: Page) -> None:
    labels = group(page, "labels")
    expect(labels.locator(".values li")).to_have_count(10)
    labels.get_by_role("button", name="Show 90 more").click()
    expect(labels.locator(".values li")).to_have_count(100)
    labels.get_by_role("searchbox").fill("LABEL 0")  # the least frequent one
    expect(labels.locator(".values li")).to_have_text(["label 01"])
    labels.get_by_label("label 0").check()
    expect_count(page, 1)


def test_condition_of_handwritten_url_survives(context: BrowserContext) -> None:
    nested = {"should": [{"field": "rating", "equals": 1}, {"field": "tags", "prefix": "s"}]}
    starts = {"field": "tags", "prefix": "p"}
    page = opened(context, nested, starts)
    expect(page.locator("#filter-chips .chip-text")).to_have_text(
        [json.dumps(nested, separators=(",", ":")), "tags starts with \u201cp\u201d"]
    )
    expect_count(page, 1)
    group(page, "tags").get_by_label("fur").check()
    assert filters_of(page) == [nested, starts, {"field": "tags", "equals": "fur"}]


def test_invalid_condition_is_explained_until_removed(context: BrowserContext) -> None:
    page = opened(context, {"field": "tagz", "equals": "pet"})
    expect(page.locator(".filters").get_by_role("alert")).to_contain_text(
        "unknown metadata column 'tagz'; did you mean 'tags'?"
    )
    page.get_by_role("button", name="Remove the filter: tagz pet").click()
    expect(page.locator(".filters").get_by_role("alert")).to_be_hidden()
    expect_count(page, _SIZE)


def test_results_are_grouped_and_show_duplicates(page: Page) -> None:
    expect(page.get_by_label("Group by")).to_be_disabled()
    page.get_by_role("searchbox", name="Describe").fill("red")
    page.get_by_role("searchbox", name="Describe").press("Enter")
    options = page.get_by_label("Group by").locator("option")
    expect(options).to_have_text(["nothing", "format", "sale", "rating"])
    page.get_by_label("Group by").select_option("format")
    page.get_by_role("checkbox", name="Show near-duplicates").check()
    query = parse_qs(urlsplit(page.url).query)
    assert (query["group"], query["dup"]) == (["format"], ["1"])
    expect(page.locator("#status")).to_contain_text("at most 6 of each group")
