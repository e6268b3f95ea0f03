"""Start, readiness, pages, headers, settings, and the documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import ValidationError
from starlette.testclient import TestClient

from app.api import schemas
from app.api.routing import Route
from app.main import create_app
from app.settings import Settings, misspelled_variables
from lookalike import bootstrap
from lookalike.errors import EncoderMismatch
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import ITEMS
from tests.api.test_errors import BAD

REPOSITORY = Path(__file__).resolve().parents[2]


def test_importing_the_application_loads_no_model_and_no_index() -> None:
    heavy = "{'torch', 'faiss', 'openvino', 'open_clip'}"
    code = f"import sys, app.main; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_livez_and_readyz(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    schemas.Ready.model_validate(ready, extra="forbid")
    assert (ready["items"], ready["text"]) == (len(ITEMS), True)


def test_port_answers_while_collection_is_being_opened(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real = threading.Event(), bootstrap.open_searcher

    def slow(*args: Any, **kwargs: Any) -> Any:
        gate.wait(30)
        return real(*args, **kwargs)

    monkeypatch.setattr(bootstrap, "open_searcher", slow)
    with TestClient(create_app(settings)) as opening:
        assert opening.get("/livez").status_code == 200
        for response in (opening.get("/readyz"), opening.post("/v1/search/text", json={"text": "x"})):
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
            assert response.headers["retry-after"] == "1"
        gate.set()
        wait_until_ready(opening)


def test_readyz_reports_collection_that_cannot_be_opened(tmp_path: Path) -> None:
    failures = []
    app = create_app(Settings(collection=tmp_path / "nowhere"))
    app.state.service.collections.default.on_failure = failures.append
    with TestClient(app) as broken:
        for _ in range(1000):
            response = broken.get("/readyz")
            if "could not" in response.json()["detail"]:
                break
            time.sleep(0.01)
        assert response.status_code == 503
        assert "[collection_not_found]" in response.json()["detail"]
        assert broken.get("/livez").status_code == 200
    assert [error.code for error in failures] == ["collection_not_found"]


def test_readyz_reports_unexpected_error_at_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def mismatch(*_: Any, **__: Any) -> Any:
        raise RuntimeError("driver too old")

    monkeypatch.setattr(bootstrap, "open_searcher", mismatch)
    with TestClient(create_app(settings)) as broken:
        for _ in range(1000):
            detail = broken.get("/readyz").json()["detail"]
            if "could not" in detail:
                break
            time.sleep(0.01)
        assert "driver too old" in detail


def test_other_encoder_is_rejected_with_both_names(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = bootstrap.load_encoder("fake")

    class Impostor:
        spec = replace(other.spec, name="impostor", weights="f" * 64)

    monkeypatch.setattr(bootstrap, "load_encoder", lambda *_, **__: Impostor())
    with pytest.raises(EncoderMismatch, match=r"'fake'.*'impostor'"):
        bootstrap.open_searcher(collection)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_external_and_no_inline_script(client: TestClient, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["'](?:https?:)?//""", page.text)
    assert not re.findall(r"<script(?![^>]*\bsrc=)", page.text)
    assert not re.findall(r"\son\w+=|<style|\sstyle=", page.text)
    for file in re.findall(r'(?:src|href)="(static/[^"]+)"', page.text):
        assert client.get(f"/{file}").status_code == 200, file


def test_modules_of_the_page_are_served(client: TestClient) -> None:
    for file in (REPOSITORY / "app/web").glob("*.js"):
        response = client.get(f"/static/{file.name}")
        assert response.headers["content-type"].startswith("text/javascript")
        assert response.headers["cache-control"] == "no-cache"
    assert client.get("/static/../main.py").status_code == 404
    assert client.get("/static/..%2Fmain.py").status_code == 404


def test_own_javascript_is_below_120_kb_as_transferred(client: TestClient) -> None:
    web, size = REPOSITORY / "app/web", 0
    for file in web.rglob("*.js"):
        with client.stream("GET", f"/static/{file.relative_to(web).as_posix()}") as response:
            assert response.headers.get("content-encoding") == "gzip" or file.stat().st_size < 500
            size += len(b"".join(response.iter_raw()))
    assert 0 < size < 120_000


def test_every_response_has_security_headers(client: TestClient) -> None:
    for response in (client.get("/livez"), client.get("/nothing"), client.post("/v1/search/text", content=b"")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["referrer-policy"] == "no-referrer"


def test_committed_openapi_document_equals_served_one(client: TestClient) -> None:
    committed = json.loads((REPOSITORY / "docs/openapi.json").read_text())
    served = client.get("/openapi.json").json()
    committed["info"]["version"] = served["info"]["version"]
    assert served == committed, "run: make reference"


def test_declared_admission_is_applied(client: TestClient) -> None:
    declaring = 0
    for context in iter_route_contexts(client.app.routes):  # type: ignore[attr-defined]
        route = context.original_route
        if isinstance(route, APIRoute) and hasattr(route.endpoint, "admission"):
            assert isinstance(route, Route), f"{context.path}: use app.api.routing's routers"
            declaring += 1
    assert declaring > 10


def test_operations_document_errors_and_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    models = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation.get("description"), path
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
    for name in ("TextSearch", "ImageSearch", "ItemSearch", "SimilarityRequest", "SearchResponse", "Problem"):
        assert models[name]["examples"], name
        getattr(schemas, name).model_validate(models[name]["examples"][0])


def test_statuses_of_bad_requests_are_documented(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, _, status, _ in BAD.values():
        if (route := path.partition("?")[0]) in paths:
            assert str(status) in paths[route]["post"]["responses"], (route, status)


@pytest.mark.parametrize(
    ("name", "value"), [("max_wait", "inf"), ("deadline", "nan"), ("proxies", "zzz"), ("proxies", "10.0.0.0/99")]
)
def test_invalid_settings_are_rejected(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})


def test_proxies_are_addresses_networks_or_all() -> None:
    for value, meant in [("", ""), ("*", "*"), ("127.0.0.1, 10.1.0.0/16 ::1", "127.0.0.1,10.1.0.0/16,::1")]:
        assert Settings(proxies=value).proxies == meant


@pytest.mark.parametrize("origins", ["shop.example", "https://shop.example/", "https://a.example https://b.example/x"])
def test_invalid_cors_origin_is_rejected(origins: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin; write it like"):
        Settings(cors_origins=origins)
    Settings(cors_origins="https://shop.example:8443,http://localhost:3000 chrome-extension://abc *")


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"LOOKALIKE_{name.upper()}", "")
    assert Settings() == Settings.model_construct(**{n: f.default for n, f in Settings.model_fields.items()})


@pytest.mark.parametrize("path", ["/v1/search/text/", "/v1/collections/", "/livez/", "/docs/"])
def test_trailing_slash_is_404_and_not_redirected(client: TestClient, path: str) -> None:
    for response in (client.get(path, follow_redirects=False), client.post(path, follow_redirects=False)):
        assert response.status_code in (404, 405)
        assert "location" not in response.headers


def test_misspelled_setting_is_reported() -> None:
    given = ["LOOKALIKE_MAX_WAT", "LOOKALIKE_MAX_WAIT", "LOOKALIKE_CACHE", "LOOKALIKE_TEST_DATA", "PATH"]
    assert misspelled_variables(given) == {"LOOKALIKE_MAX_WAT": "LOOKALIKE_MAX_WAIT"}
