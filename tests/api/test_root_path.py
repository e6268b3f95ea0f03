"""The service under a path of its host, behind a proxy that removes the path or forwards it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.api.conftest import wait_until_ready

ROOT = "/my/images"


@pytest.fixture(scope="module")
def published(collection: Path) -> Iterator[TestClient]:
    """A client of the service itself: its paths are those that a proxy forwards."""
    with TestClient(create_app(Settings(collection=collection, root_path=ROOT))) as opened:
        wait_until_ready(opened)
        yield opened


@pytest.mark.parametrize("forwarded", ["", ROOT])
def test_paths_work_with_and_without_the_root(published: TestClient, forwarded: str) -> None:
    for path in ("/", "/docs", "/openapi.json", "/static/app.js", "/static/swagger-ui/swagger-ui.css", "/livez"):
        assert published.get(f"{forwarded}{path}").status_code == 200, path
    found = published.post(f"{forwarded}/v1/search/text", json={"text": "x"}).json()["results"]
    urls = [result["thumbnail_url"] for result in found if result["thumbnail_url"]]
    assert len(urls) == len(found) - 1
    for url in urls:
        assert url.startswith(f"{ROOT}/v1/item")
        assert published.get(forwarded + url.removeprefix(ROOT)).status_code == 200
    named = published.get(f"{forwarded}/v1/collections/photographs/items").json()["items"][0]
    assert named["thumbnail_url"].startswith(f"{ROOT}/v1/collections/photographs/items/")


@pytest.mark.parametrize("forwarded", ["/", ROOT, f"{ROOT}/"])
def test_page_has_its_root_as_base(published: TestClient, client: TestClient, forwarded: str) -> None:
    page = published.get(forwarded, follow_redirects=False)
    assert (page.status_code, page.headers["cache-control"]) == (200, "no-cache")
    assert f'<base href="{ROOT}/">' in page.text
    assert "base-uri 'self'" in page.headers["content-security-policy"]
    assert "<base" not in client.get("/").text


def test_document_names_the_root_as_server(published: TestClient, client: TestClient) -> None:
    assert published.get("/openapi.json").json()["servers"] == [{"url": ROOT}]
    assert published.get(f"{ROOT}/openapi.json").json()["servers"] == [{"url": ROOT}]
    assert "servers" not in client.get("/openapi.json").json()


@pytest.mark.parametrize("path", ["/nothing", f"{ROOT}/nothing", "/static/nothing"])
def test_problem_names_the_published_path(published: TestClient, path: str) -> None:
    problem = published.get(path).json()
    assert problem["instance"] == ROOT + path.removeprefix(ROOT)
    assert problem["detail"] == f"nothing is served at {problem['instance']}; see {ROOT}/docs"


def test_metrics_name_routes_without_the_root(published: TestClient) -> None:
    for forwarded in ("", ROOT):
        published.get(f"{forwarded}/v1/items/cup")
        published.post(f"{forwarded}/v1/search/text", content=b"{")
    metrics = published.get("/metrics").text
    assert 'route="/v1/items/{item_id:path}",status="200"' in metrics
    assert 'route="/v1/search/text",status="' in metrics
    assert ROOT not in metrics


def test_access_log_has_the_published_path(published: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.telemetry")
    published.get("/v1/items")
    assert f"path={ROOT}/v1/items" in caplog.text


def test_docs_have_their_own_policy(published: TestClient) -> None:
    for path in ("/docs", f"{ROOT}/docs"):
        assert "style-src 'self' 'unsafe-inline'" in published.get(path).headers["content-security-policy"]


def test_health_port_serves_both_forms(collection: Path) -> None:
    app = create_app(Settings(collection=collection, root_path=ROOT, health_port=80))
    with TestClient(app) as at_health_port:  # its address is testserver:80
        assert at_health_port.get("/livez").status_code == at_health_port.get(f"{ROOT}/livez").status_code == 200
        assert at_health_port.get("/v1/items").status_code == at_health_port.get(ROOT).status_code == 404


def test_root_path_of_the_server_is_used(collection: Path) -> None:
    with TestClient(create_app(Settings(collection=collection)), root_path="/pictures") as prefixed:
        wait_until_ready(prefixed)
        assert prefixed.get("/v1/items/cup").json()["thumbnail_url"].startswith("/pictures/v1/items/cup/thumbnail?")
