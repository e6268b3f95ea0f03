"""The endpoint that CONTRIBUTING.md adds as an example."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api import schemas
from app.errors import Overloaded
from app.main import create_app
from app.settings import Settings
from lookalike.errors import UnknownItem
from lookalike.search import RankedHits, Searcher
from lookalike.types import Float32
from tests.api.conftest import wait_until_ready

CONTRIBUTING = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def test_example_endpoint_works(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = CONTRIBUTING.read_text().partition("## Add an endpoint")[2].partition("\n## ")[0]
    models, route = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    defined: dict[str, Any] = {}
    exec(models, vars(schemas), defined)
    for name, model in defined.items():
        monkeypatch.setattr(schemas, name, model, raising=False)
    namespace: dict[str, Any] = {"__name__": "app.api.best_match"}
    exec(route, namespace)
    app = create_app(Settings(collection=collection))
    app.include_router(namespace["router"])
    with TestClient(app) as client:
        wait_until_ready(client)
        for path in ("/v1/search/best", "/v1/collections/photographs/search/best"):
            response = client.post(path, json={"text": "a cat"})
            schemas.BestMatchResponse.model_validate(response.json(), extra="forbid")  # type: ignore[attr-defined]
            assert client.post(path, json={"text": 5}).json()["code"] == "request_invalid"
            assert f'route="{path.replace("photographs", "{name}")}",status="422"' in client.get("/metrics").text
        document = client.get("/openapi.json").json()
        assert "BestMatchRequest" in document["components"]["schemas"]
        with monkeypatch.context() as patched:
            patched.setattr(Searcher, "search_vectors", _no_hits)
            assert client.post("/v1/search/best", json={"text": "a cat"}).json()["code"] == UnknownItem.code
        app.state.service.admission["text"].admit = _refuse
        assert client.post("/v1/search/best", json={"text": "a cat"}).status_code == 503


def _no_hits(searcher: Searcher, queries: Float32, *_: object) -> list[RankedHits]:
    return [RankedHits([], None) for _ in queries]


def _refuse() -> None:
    raise Overloaded("busy")
