"""The search page in a browser."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pillow_heif
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from lookalike.images import EXTENSIONS
from tests.api.small_collection import ITEMS, PHOTOGRAPHS, WITHOUT_THUMBNAIL, photograph

PASTE_OR_DROP_FILE = """
([encoded, kind, event]) => {
  const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "image", { type: kind }));
  const options = { bubbles: true, cancelable: true };
  const fire = (type) =>
    document.body.dispatchEvent(
      type === "paste"
        ? new ClipboardEvent(type, { ...options, clipboardData: transfer })
        : new DragEvent(type, { ...options, dataTransfer: transfer }),
    );
  (event === "drop" ? ["dragenter", "dragover", "drop"] : [event]).forEach(fire);
}
"""


def paste_or_drop(page: Page, event: str, data: bytes, kind: str = "image/png") -> None:
    """Paste a file, or drop it onto the page."""
    page.evaluate(PASTE_OR_DROP_FILE, [base64.b64encode(data).decode(), kind, event])


def ids(page: Page) -> list[str]:
    return page.locator(".card").evaluate_all("cards => cards.map((card) => card.dataset.id)")


def query_of(page: Page) -> dict[str, list[str]]:
    query = parse_qs(urlsplit(page.url).query)
    query.pop("dup", None)
    return query


def wait_for_first(page: Page, item_id: str) -> None:
    expect(page.locator(".card").first).to_have_attribute("data-id", item_id)
    expect(page.locator("#grid")).to_have_attribute("aria-busy", "false")


def search(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator("#status")).to_contain_text("best first")


def test_start_page_shows_the_collection(page: Page) -> None:
    assert ids(page) == list(ITEMS)
    expect(page.locator("#status")).to_have_text(f"{len(ITEMS)} images in photographs · encoder fake")
    expect(page.get_by_role("img", name="a cat", exact=True)).to_have_count(1)


def test_start_page_says_what_the_encoder_understands(page: Page) -> None:
    expect(page.locator("#encoder")).to_have_text("Encoder fake: English. Good for colours; not for anything else.")


@pytest.mark.parametrize(
    ("languages", "limits", "text", "title"),
    [
        (["de", "en", "zh"], "Good.", "Encoder x: English and 2 other languages. Good.", "German, English, Chinese"),
        (["de", "fr"], "", "Encoder x: German and 1 other language.", "German, French"),
        ([], "Good.", "Encoder x: Good.", ""),
        ([], "", None, None),
    ],
)
def test_line_about_the_encoder(
    page: Page, languages: list[str], limits: str, text: str | None, title: str | None
) -> None:
    facts = {"name": "photographs", "items": 9, "encoder": "x", "languages": languages, "limits": limits, "text": True}
    page.route("**/v1/collections", lambda route: route.fulfill(json={"collections": [facts]}))
    with page.expect_response("**/v1/collections"):
        page.goto("/")
    page.wait_for_selector(".card")
    line = page.locator("#encoder")
    if text is None:
        expect(line).to_be_hidden()
        return
    expect(line).to_have_text(text)
    expect(line).to_have_attribute("title", f"{text} {title}".strip())


def test_every_thumbnail_loads(page: Page) -> None:
    for image in page.locator(".card img").all():
        image.scroll_into_view_if_needed()
    expect(page.locator(".card img.missing")).to_have_count(1)
    page.wait_for_function("[...document.querySelectorAll('.card img:not(.missing)')].every((i) => i.naturalWidth > 0)")
    expect(page.locator(f'.card[data-id="{WITHOUT_THUMBNAIL}"] img')).to_have_class("missing")


def test_text_search_shows_scores_timings_and_url(page: Page) -> None:
    search(page, "red blue")
    assert query_of(page) == {"q": ["red blue"]}
    scores = [float(text) for text in page.locator(".number").all_inner_texts()]
    assert len(scores) == len(ITEMS)
    assert scores == sorted(scores, reverse=True)
    expect(page.locator("#timings")).to_contain_text("encode")
    expect(page).to_have_title("red blue · Lookalike")


def test_url_opens_its_search(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/?q=green")
    expect(page.get_by_role("searchbox")).to_have_value("green")
    expect(page.locator(".number").first).to_be_visible()


@pytest.mark.parametrize("action", ["upload", "paste", "drop"])
def test_image_search_finds_the_same_and_a_similar_image(page: Page, image: Path, action: str) -> None:
    if action == "upload":
        page.get_by_label("Search by an image file").set_input_files(image)
    else:
        paste_or_drop(page, action, image.read_bytes())
    wait_for_first(page, "left.png")
    expect(page.locator(".number").first).to_have_text("1.000")
    assert ids(page)[1] == "right.png"
    expect(page.get_by_text("This image is kept in this tab")).to_be_visible()
    assert list(query_of(page)) == ["image"]
    expect(page.locator("#drop")).to_be_hidden()


def test_image_can_be_pasted_with_the_keyboard(page: Page, image: Path) -> None:
    page.evaluate(
        """async (encoded) => {
          const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
          const blob = new Blob([bytes], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode(image.read_bytes()).decode(),
    )
    page.keyboard.press("Control+v")
    wait_for_first(page, "left.png")


def test_text_can_be_pasted_into_the_search_box(page: Page) -> None:
    page.evaluate("navigator.clipboard.writeText('a red thing')")
    page.get_by_role("searchbox").focus()
    page.keyboard.press("Control+v")
    expect(page.get_by_role("searchbox")).to_have_value("a red thing")


def test_history_returns_to_earlier_searches(page: Page, image: Path) -> None:
    search(page, "blue")
    results = ids(page)
    page.get_by_role("link", name="More like this: a motorcycle", exact=True).click()
    expect(page.locator("#chips .chip-text")).to_have_text(["a motorcycle"])
    assert query_of(page) == {"q": ["blue"], "like": ["left.png"]}
    page.get_by_label("Search by an image file").set_input_files(image)
    expect(page.locator("#chips .chip-text")).to_have_text(["a motorcycle", "my motorcycle.png"])
    page.go_back()
    expect(page.locator("#chips .chip-text")).to_have_text(["a motorcycle"])
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("blue")
    expect(page.locator("#chips .chip")).to_have_count(0)
    wait_for_first(page, results[0])
    assert ids(page) == results
    page.go_forward()
    page.go_forward()
    expect(page.locator("#chips .chip-text")).to_have_text(["a motorcycle", "my motorcycle.png"])


@pytest.mark.parametrize("item_id", ITEMS)
def test_more_like_this_has_a_url_for_every_id(page: Page, item_id: str) -> None:
    href = page.locator(".card .like").nth(list(ITEMS).index(item_id)).get_attribute("href")
    assert href is not None
    page.goto(f"/{href}&dup=1")
    wait_for_first(page, item_id)


def test_file_pickers_offer_every_format(page: Page) -> None:
    accepted = page.get_by_label("Search by an image file").get_attribute("accept")
    assert set((accepted or "").split(",")) == {"image/*", *EXTENSIONS}


@pytest.mark.parametrize("width", [1280, 390])
def test_format_without_preview_is_shown_by_its_name(page: Page, tmp_path: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    photo = tmp_path / "IMG_0001.HEIC"
    pillow_heif.from_pillow(Image.open(io.BytesIO(photograph("left.png")))).save(photo)
    page.get_by_label("Search by an image file").set_input_files(photo)
    wait_for_first(page, "left.png")
    expect(page.locator("#chips .chip-text")).to_have_text("IMG_0001.HEIC")
    expect(page.locator("#chips .chip-text")).to_be_visible()
    expect(page.locator("#chips .chip-image")).to_be_hidden()
    page.get_by_label("Search by an image file").set_input_files(PHOTOGRAPHS / "rocket.jpg")
    expect(page.locator("#chips .chip-image").last).to_be_visible()


@pytest.mark.parametrize("name", ["shot.CR3", "photo.heic"])
def test_image_with_an_unknown_type_is_sent(page: Page, name: str) -> None:
    page.get_by_label("Search by an image file").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": photograph("left.png")}
    )
    wait_for_first(page, "left.png")


def test_skip_link_keeps_the_search(page: Page) -> None:
    search(page, "red")
    page.get_by_role("link", name="Skip to results").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_focused()
    assert query_of(page) == {"q": ["red"]}


def test_reload_reports_that_the_image_is_lost(page: Page, image: Path) -> None:
    page.get_by_label("Search by an image file").set_input_files(image)
    wait_for_first(page, "left.png")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The image is no longer available")


def test_page_shows_the_messages_of_the_service(page: Page) -> None:
    paste_or_drop(page, "drop", b"\x89PNG\r\n\x1a\n no image at all")
    expect(page.get_by_role("alert")).to_contain_text("corrupt")
    paste_or_drop(page, "drop", b"\0" * 2_100_000)
    expect(page.get_by_role("alert")).to_contain_text("over the limit")
    paste_or_drop(page, "drop", b"%PDF-1.7", "application/pdf")
    expect(page.get_by_role("alert")).to_contain_text("not an image")
    page.get_by_role("button", name="Remove image from the search").click()
    search(page, "red")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_failed_search_can_be_retried(page: Page) -> None:
    page.route("**/v1/search", lambda route: route.fulfill(status=502, body="bad gateway"))
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("502")
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status")).to_contain_text("best first")


def test_page_can_be_used_by_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to results")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("red")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("best first")
    order = ids(page)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "image":
            break
    focused = "document.activeElement.closest('.card')?.dataset.id"
    assert page.evaluate(focused) == order[0]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == order[1]
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) not in order[:2]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert list(query_of(page)) == ["q", "item"]
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert list(query_of(page)) == ["q"]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow_page_does_not_scroll_horizontally(page: Page, image: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    search(page, "a very long query that does not fit into the box of a phone, not by far")
    assert page.evaluate(overflow) == 0
    page.get_by_label("Search by an image file").set_input_files(image)
    wait_for_first(page, "left.png")
    for name in ("a motorcycle", "a cat"):
        page.get_by_role("checkbox", name=f"Select: {name}", exact=True).check()
    expect(page.locator("#selection")).to_be_visible()
    assert page.evaluate(overflow) == 0


def test_every_control_has_an_accessible_name(page: Page) -> None:
    search(page, "red")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("a, button, input, select, img")]
          .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.alt || e.textContent.trim() || e.labels?.length))
          .map((e) => e.outerHTML)"""
    )
    assert unnamed == []


def test_markup_in_a_caption_is_escaped(page: Page) -> None:
    page.route(
        "**/v1/search",
        lambda route: route.fulfill(
            json={
                "results": [
                    {
                        "id": "<img src=x onerror=alert(1)>",
                        "score": 0.5,
                        "metadata": {"caption": "<script>document.title = 'owned'</script>"},
                        "thumbnail_url": None,
                    }
                ],
                "took_ms": {"total": 1.0},
            }
        ),
    )
    search(page, "anything")
    expect(page.locator(".caption")).to_have_text("<script>document.title = 'owned'</script>")
    assert page.title() == "anything · Lookalike"


def test_api_documentation_works_offline(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/docs")
    expect(page.get_by_text("/v1/search/text", exact=True)).to_be_visible()
