"""Adding, editing and deleting images on the search page of a writable service."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, Request, expect

from app.settings import Settings
from tests.api.small_collection import ITEMS, build_collection, photograph
from tests.api.waiting import eventually
from tests.web.conftest import serving

KEY = "0123456789abcdef"
DROP = """([zone, name, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
  for (const type of ["dragenter", "drop"]) {
    document.getElementById(zone).dispatchEvent(new DragEvent(type, { bubbles: true, dataTransfer: transfer }));
  }
}"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_collection(tmp_path_factory.mktemp("editing") / "photographs")


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[str]:
    """Return the URL of a writable service; each test changes items of its own."""
    with serving(Settings(collection=root, writable=True, max_body_bytes=2_000_000)) as address:
        yield address


def small(item_id: str) -> bytes:
    """Return a small JPEG of a photograph."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(photograph(item_id))) as opened:
        opened.convert("RGB").resize((96, 64)).save(out, "JPEG")
    return out.getvalue()


def file(name: str, data: bytes, kind: str = "image/jpeg") -> FilePayload:
    return {"name": name, "mimeType": kind, "buffer": data}


def item(site: str, item_id: str) -> httpx.Response:
    return httpx.get(f"{site}/v1/item", params={"id": item_id})


def card(page: Page, item_id: str) -> Locator:
    return page.locator(f'.card[data-id="{item_id}"]')


def open_form(page: Page, item_id: str) -> Locator:
    card(page, item_id).locator(".image").click()
    page.get_by_role("button", name="Edit", exact=True).click()
    form = page.get_by_role("form", name="Metadata")
    expect(form).to_be_visible()
    return form


def panel(page: Page) -> Locator:
    return page.get_by_role("region", name="Add images")


def test_files_are_added_and_each_refusal_is_listed(page: Page, site: str) -> None:
    page.locator("#add-files").set_input_files(
        [
            file("new.jpg", small("space/rocket.jpg")),
            file("left.png", small("left.png")),
            file("notes.txt", b"no image", "text/plain"),
            file("broken.png", b"no image either", "image/png"),
            file("empty.png", b"", "image/png"),
            file("huge.png", b"0" * 2_100_000, "image/png"),
        ]
    )
    expect(panel(page)).to_contain_text("left.png exists already.")
    panel(page).get_by_role("button", name="Keep both").click()
    expect(panel(page)).to_contain_text("2 images added, 4 failed")
    lines = panel(page).get_by_role("listitem").all_inner_texts()
    for name, reason in [("notes", "text/plain"), ("broken", "image"), ("empty", "empty"), ("huge", "over the limit")]:
        assert [reason in line for line in lines if line.startswith(name)] == [True], (name, lines)
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator(".card")).to_have_count(2)
    expect(card(page, "left-2.png")).to_be_visible()
    assert item(site, "left.png").json()["metadata"]["width"] == 741
    panel(page).get_by_role("button", name="Close").click()
    expect(panel(page)).to_be_hidden()
    page.goto("/?like=space%2Frocket.jpg&dup=1")
    expect(page.locator(".card").first).to_be_visible()
    assert "new.jpg" in page.locator(".card").evaluate_all("all => all.slice(0, 2).map((card) => card.dataset.id)")


def test_existing_names_are_skipped_or_replaced(page: Page, site: str) -> None:
    before = item(site, "right.png").headers["ETag"]
    for answer, result in [("Skip", "0 images added, 1 skipped"), ("Replace", "1 image added")]:
        page.locator("#add-files").set_input_files([file("right.png", small("right.png"))])
        panel(page).get_by_role("button", name=answer).click()
        expect(page.locator(".toast", has_text=result)).to_be_visible()
        assert (item(site, "right.png").headers["ETag"] == before) == (answer == "Skip")


def test_many_files_are_added_four_at_a_time(page: Page, site: str) -> None:
    in_flight: set[Request] = set()
    most = 0

    def begin(request: Request) -> None:
        nonlocal most
        if request.method == "PUT":
            in_flight.add(request)
            most = max(most, len(in_flight))

    page.on("request", begin)
    page.on("requestfinished", lambda request: in_flight.discard(request))
    data = small("space/astronaut.png")
    page.locator("#add-files").set_input_files([file(f"many/{number}.jpg", data) for number in range(30)])
    expect(page.locator(".toast")).to_contain_text("30 images added")
    expect(panel(page)).to_be_hidden()
    assert 1 < most <= 4
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator(".card")).to_have_count(30)


def test_dropped_file_is_added(page: Page, site: str) -> None:
    page.evaluate(DROP, ["drop-add", "dropped.jpg", list(small("cup"))])
    expect(page.locator(".toast")).to_contain_text("1 image added")
    assert item(site, "dropped.jpg").status_code == 200
    assert page.url.endswith("/?dup=1")  # not a search


def test_upload_waits_for_the_service_and_can_be_cancelled(page: Page, site: str) -> None:
    busy: dict[str, Any] = {"status": 503, "headers": {"Retry-After": "30"}, "json": {"detail": "busy", "code": "x"}}
    page.route("**/v1/items/*", lambda route: route.fulfill(**busy))
    page.locator("#add-files").set_input_files([file(f"busy{number}.jpg", small("cup")) for number in range(6)])
    expect(page.locator("#waiting")).to_contain_text("Trying again in")
    panel(page).get_by_role("button", name="Cancel").click()
    expect(page.locator(".toast")).to_contain_text("0 images added, 6 not sent")
    expect(page.locator("#waiting")).to_be_hidden()


def test_saved_metadata_is_shown_and_found(page: Page, site: str) -> None:
    form = open_form(page, "space/astronaut.png")
    expect(form.get_by_text("width", exact=True)).to_have_count(0)
    form.get_by_label("caption").fill("Eileen")
    form.get_by_label("Name of the new field").fill("year")
    form.get_by_label("Type of the new field").select_option("number")
    form.get_by_label("Value of the new field").fill("nineteen")
    form.get_by_role("button", name="Save").click()
    expect(form).to_contain_text("nineteen is not a number.")
    form.get_by_label("Value of the new field").fill("1999")
    form.get_by_role("button", name="Save").click()
    details = page.get_by_role("dialog", name="Eileen")
    expect(details.locator("dd", has_text="1999")).to_be_visible()
    expect(page.get_by_role("button", name="Edit", exact=True)).to_be_focused()
    page.get_by_role("button", name="Edit", exact=True).click()
    form.get_by_label("year", exact=True).fill("1999.5 m")
    form.get_by_role("button", name="Save").click()
    expect(form.locator(".edit-field", has_text="year")).to_contain_text("1999.5 m is not a number.")
    form.get_by_label("year", exact=True).fill("")
    form.get_by_role("button", name="Save").click()
    expect(details.locator("dt", has_text="year")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(card(page, "space/astronaut.png").locator(".caption")).to_have_text("Eileen")
    metadata = item(site, "space/astronaut.png").json()["metadata"]
    assert metadata["caption"] == "Eileen"
    assert "year" not in metadata


def test_list_and_service_errors_are_beside_their_field(page: Page, site: str) -> None:
    form = open_form(page, "cup/thumbnail")
    form.get_by_label("Name of the new field").fill("width")
    form.get_by_label("Value of the new field").fill("3")
    form.get_by_role("button", name="Save").click()
    expect(form.get_by_role("group", name="New field")).to_contain_text("width is measured on the image")
    form.get_by_label("Name of the new field").fill("tags")
    form.get_by_label("Type of the new field").select_option("List")
    form.get_by_label("Value of the new field").fill("hot\n\nblack, strong")
    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()
    assert item(site, "cup/thumbnail").json()["metadata"]["tags"] == ["hot", "black, strong"]


def test_conflict_keeps_what_was_entered(page: Page, site: str) -> None:
    form = open_form(page, "animals/cat.png")
    form.get_by_label("caption").fill("my cat")
    others = {"metadata": {"caption": "their cat", "owner": "Ann"}}
    assert httpx.patch(f"{site}/v1/items/animals/cat.png", json=others).status_code == 200
    form.get_by_role("button", name="Save").click()
    expect(form).to_contain_text("This image was changed meanwhile.")
    expect(form.locator(".edit-field", has_text="caption")).to_contain_text("It is their cat now.")
    expect(form.get_by_label("caption")).to_have_value("my cat")
    page.keyboard.press("Escape")
    expect(form).to_contain_text("There are changes. Press Save or Cancel.")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog", name="my cat")).to_be_visible()
    metadata = item(site, "animals/cat.png").json()["metadata"]
    assert (metadata["caption"], metadata["owner"]) == ("my cat", "Ann")


def test_undo_restores_a_deleted_item_in_its_place(page: Page, site: str) -> None:
    order = page.locator(".card").evaluate_all("all => all.map((card) => card.dataset.id)")
    card(page, "cup/thumbnail").locator(".image").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(card(page, "cup/thumbnail")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text(f"{len(order) - 1} images")
    page.get_by_role("button", name="Undo").click()
    expect(card(page, "cup/thumbnail").locator(".image")).to_be_focused()
    assert page.locator(".card").evaluate_all("all => all.map((card) => card.dataset.id)") == order
    assert item(site, "cup/thumbnail").status_code == 200


def test_selected_items_are_deleted_when_the_message_closes(page: Page, site: str) -> None:
    for name in ("one", "two"):
        httpx.put(f"{site}/v1/items/{name}", content=small("cup"), headers={"Content-Type": "image/jpeg"})
    page.reload()
    for name in ("one", "two"):
        card(page, name).get_by_role("checkbox").check()
    card(page, "two").locator(".image").focus()
    page.keyboard.press("Delete")
    expect(page.locator("#selection")).to_be_hidden()
    assert page.evaluate("document.activeElement.matches('.card .image')")
    assert item(site, "one").status_code == 200
    page.get_by_role("button", name="Close this message").click()
    eventually(lambda: page.evaluate("1") and {item(site, name).status_code for name in ("one", "two")} == {404})
    expect(card(page, "one")).to_have_count(0)


def test_leaving_the_page_deletes_at_once(page: Page, site: str) -> None:
    httpx.put(f"{site}/v1/items/leaving", content=small("cup"), headers={"Content-Type": "image/jpeg"})
    page.reload()
    card(page, "leaving").locator(".image").click()
    page.keyboard.press("Delete")
    expect(page.locator(".toast")).to_contain_text("1 image deleted.")
    page.goto("/docs")
    eventually(lambda: page.evaluate("1") and item(site, "leaving").status_code == 404)


def test_failed_deletion_restores_the_items(page: Page, site: str) -> None:
    problem = {"title": "Disk full", "detail": "the disk is full", "code": "disk_full"}
    page.route("**/v1/items/batch", lambda route: route.fulfill(status=507, json=problem))
    card(page, "no thumbnail").locator(".image").focus()
    page.keyboard.press("Delete")
    expect(card(page, "no thumbnail")).to_have_count(0)
    page.get_by_role("button", name="Close this message").click()
    expect(page.locator(".toast")).to_contain_text("1 image not deleted: the disk is full")
    expect(card(page, "no thumbnail")).to_be_visible()


def test_key_without_the_role_stops_once(browser: Browser, tmp_path: Path) -> None:
    collection = build_collection(tmp_path / "photographs")
    with serving(Settings(collection=collection, writable=True, keys=f"read:{KEY}")) as address:
        page = browser.new_page(base_url=address)
        page.goto("/")
        page.locator("#key-input").fill(KEY)
        page.get_by_role("button", name="Continue").click()
        expect(page.locator(".card")).to_have_count(len(ITEMS))
        page.locator("#add-files").set_input_files([file(f"{number}.jpg", small("cup")) for number in range(20)])
        expect(panel(page)).to_contain_text("0 images added, 20 not sent")
        expect(panel(page).get_by_role("alert").first).to_contain_text(
            "this needs the role 'write'; the key has 'read'"
        )
        expect(panel(page).get_by_role("listitem")).to_have_count(0)
        page.close()


def test_read_only_service_has_no_controls(browser: Browser, tmp_path: Path) -> None:
    with serving(Settings(collection=build_collection(tmp_path / "photographs"))) as address:
        page = browser.new_page(base_url=address)
        page.goto("/")
        card(page, "left.png").get_by_role("checkbox").check()
        expect(page.get_by_role("button", name="Download ids", exact=True)).to_be_visible()
        expect(page.get_by_role("button", name="Delete")).to_have_count(0)
        expect(page.locator("#add")).to_be_hidden()
        card(page, "left.png").locator(".image").click()
        expect(page.locator(".details-similar a").first).to_be_visible()
        expect(page.locator("#details-actions")).to_be_empty()
        page.keyboard.press("Delete")
        expect(page.locator(".item-details")).to_be_visible()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_controls_have_no_accessibility_violations(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.locator("#add-files").set_input_files([file("left.png", small("cup")), file("notes.txt", b"x", "text/plain")])
    expect(panel(page)).to_contain_text("left.png exists already.")
    assert Axe().run(page).violations_count == 0, Axe().run(page).generate_report()
    panel(page).get_by_role("button", name="Skip").click()
    panel(page).get_by_role("button", name="Close").click()
    form = open_form(page, "left.png")
    expect(page.locator(".details-similar a").first).to_be_visible()
    form.get_by_label("Name of the new field").fill("x")
    form.get_by_role("button", name="Save").click()
    expect(form).to_contain_text("Give x a value.")
    assert Axe().run(page).violations_count == 0, Axe().run(page).generate_report()
