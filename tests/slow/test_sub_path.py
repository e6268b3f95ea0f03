"""The service under a sub-path of a host, behind a real nginx and a real Apache by the guide's configurations."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from app.settings import Settings
from benchmarks.nginx import run_nginx, run_proxy
from tests.api.small_collection import AWKWARD_ITEMS, build_collection
from tests.api.waiting import eventually
from tests.conftest import REPOSITORY
from tests.e2e.commands import free_port
from tests.web.conftest import serving

PREFIX = "/lookalike"
KEY = "0123456789abcdef"
LOADED_IMAGES = "[...document.querySelectorAll('.card img')].filter((image) => image.naturalWidth > 0).length"
PROXIES = [f"{server} {form}" for server in ("nginx", "apache2") for form in ("removes", "forwards")]
"""Servers that remove the prefix and send it as a header, and that forward it in the path."""

_NGINX = """
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {snippet}
    }}
}}
"""
_APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache2.pid
DefaultRuntimeDir {folder}
ErrorLog /dev/stderr
LogLevel error
Listen 127.0.0.1:{port}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
User www-data
Group www-data
{snippet}
"""


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_collection(tmp_path_factory.mktemp("sub-path") / "photographs", items=AWKWARD_ITEMS)


@pytest.fixture(scope="module", params=PROXIES)
def site(request: pytest.FixtureRequest, collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the service behind a proxy, without a slash at its end."""
    with published(request.param, collection, tmp_path_factory.mktemp("proxy")) as address:
        yield address


@contextmanager
def published(proxy: str, collection: Path, folder: Path, keys: str = "") -> Iterator[str]:
    """Run a service and one of `PROXIES` in front of it."""
    server, form = proxy.split()
    if shutil.which(server) is None:
        pytest.skip(f"{server} is not installed (Debian: apt-get install nginx-light apache2-bin)")
    settings = Settings(
        collection=collection,
        proxies="127.0.0.1",
        root_path=PREFIX if form == "forwards" else "",
        keys=keys,  # type: ignore[arg-type]
    )
    port = free_port()
    with ExitStack() as stack:
        address = stack.enter_context(serving(settings))
        snippet = configuration(server, form).replace("http://127.0.0.1:8000", address)
        template = _NGINX if server == "nginx" else _APACHE
        path = folder / f"{server}.conf"
        path.write_text(template.format(folder=folder, port=port, snippet=snippet))
        if server == "nginx":
            stack.enter_context(run_nginx(folder))
        else:
            command = ["apache2", "-D", "FOREGROUND", "-f", str(path)]
            stack.enter_context(run_proxy(command, port, folder / "log"))
        yield f"http://127.0.0.1:{port}{PREFIX}"


def configuration(server: str, form: str) -> str:
    """The configuration in the guide, changed to forward the prefix if asked."""
    language = server.removesuffix("2")
    guide = (REPOSITORY / "docs/guides/deploy.md").read_text()
    text = re.findall(rf"```{language}\n(.*?)```", guide, re.DOTALL)[0]
    assert text.count("127.0.0.1:8000") == 1
    if form == "forwards":
        text = re.sub(r".*X-Forwarded-Prefix.*\n", "", text)
        target = "127.0.0.1:8000;" if server == "nginx" else f"127.0.0.1:8000{PREFIX}"
        text = re.sub(r"127\.0\.0\.1:8000[/;]*", target, text)
    return text


def wait_for_all_images(page: Page) -> None:
    expect(page.locator(".card")).to_have_count(len(AWKWARD_ITEMS))
    eventually(lambda: page.evaluate(LOADED_IMAGES) == len(AWKWARD_ITEMS))


@pytest.mark.parametrize("end", ["/", ""])
def test_page_searches_and_shows_every_thumbnail(context: BrowserContext, site: str, end: str) -> None:
    if not end and httpx.get(site, follow_redirects=True).status_code == 404:
        pytest.skip("the proxy does not publish the path without a slash")
    page = context.new_page()
    page.goto(f"{site}{end}?dup=1")
    wait_for_all_images(page)
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator("#status")).to_contain_text("best first")
    assert page.url == f"{site}/?q=red&dup=1"
    wait_for_all_images(page)
    page.get_by_role("link", name="More like this: a cup", exact=True).click()
    expect(page.locator(".card").first).to_have_attribute("data-id", "../x")
    page.reload()
    expect(page.locator(".chip-text").first).to_have_text("a cup")
    page.locator("#home").click()
    expect(page).to_have_url(f"{site}/")


def test_docs_send_requests_under_the_path(context: BrowserContext, site: str) -> None:
    page = context.new_page()
    page.set_default_timeout(60_000)  # Swagger UI draws for seconds on a busy machine
    page.goto(f"{site}/docs")
    operation = page.locator("#operations-items-list_items_v1_items_get")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    expect(operation.locator(".request-url")).to_contain_text(f"{site}/v1/items")


def test_every_id_is_found_through_the_proxy(site: str) -> None:
    with httpx.Client(base_url=site) as client:
        assert client.get("openapi.json").json()["servers"] == [{"url": PREFIX}]
        items = client.get("v1/items").json()["items"]
        assert [item["id"] for item in items] == list(AWKWARD_ITEMS)
        for item in items:
            assert item["thumbnail_url"].startswith(f"{PREFIX}/v1/item")
            thumbnail = client.get(item["thumbnail_url"].removeprefix(f"{PREFIX}/"))
            assert (thumbnail.status_code, thumbnail.headers["content-type"]) == (200, "image/jpeg"), item["id"]
            assert client.get("v1/item", params={"id": item["id"]}).json()["id"] == item["id"]


def test_thumbnails_load_with_a_key_under_the_path(browser: Browser, collection: Path, tmp_path: Path) -> None:
    with published(PROXIES[0], collection, tmp_path, keys=f"read:{KEY}") as address:
        page = browser.new_page()
        page.goto(f"{address}/")
        page.get_by_role("textbox", name="API key").fill(KEY)
        page.get_by_role("button", name="Continue").click()
        wait_for_all_images(page)
        page.close()
