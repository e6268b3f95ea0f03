"""Keys, roles, rate limits, host names and origins over HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.auth.keys import new_key
from app.auth.rate_limit import RateLimiter
from app.errors import RateLimited
from app.main import create_app
from app.settings import Settings
from lookalike.errors import ConfigInvalid
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import photograph
from tests.api.waiting import eventually

READ, ADMIN = "read-0123456789abcdef", "admin-0123456789abcdef"
TEXT = {"json": {"text": "a cat"}}
RELOAD = "/v1/collections/photographs/reload"


@pytest.fixture(scope="module")
def guarded(collection: Path) -> Iterator[TestClient]:
    settings = Settings(collection=collection, keys=f"read:{READ} admin:{ADMIN}")
    with TestClient(create_app(settings), raise_server_exceptions=False) as opened:
        wait_until_ready(opened)
        yield opened


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("headers", [bearer(READ), {"X-API-Key": READ}, bearer(ADMIN), {"x-api-key": ADMIN}])
def test_known_key_may_search(guarded: TestClient, headers: dict[str, str]) -> None:
    assert guarded.post("/v1/search/text", headers=headers, **TEXT).status_code == 200
    assert guarded.get("/v1/items", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/search/text",
        "/v1/search/image",
        "/v1/search/item",
        "/v1/similarity",
        "/v1/facets",
        "/v1/count",
        RELOAD,
    ],
)
def test_query_without_a_key_is_rejected_unread(guarded: TestClient, path: str) -> None:
    response = guarded.post(path, content=b"{")  # before the body is read
    assert (response.status_code, response.json()["code"]) == (401, "key_missing")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/v1/items", "/v1/items/cup", "/v1/items/cup/thumbnail", "/v1/fields", "/v1/collections"]
)
def test_reading_without_a_key_is_rejected(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 401


@pytest.mark.parametrize("headers", [bearer("read"), bearer(READ + "x"), {"X-API-Key": "é"}, bearer("\x7f" * 5000)])
def test_unknown_key_is_rejected(guarded: TestClient, headers: dict[str, str]) -> None:
    sent = {name: value.encode() for name, value in headers.items()}
    response = guarded.post("/v1/search/text", headers=sent, **TEXT)  # type: ignore[arg-type]
    assert (response.status_code, response.json()["code"]) == (401, "key_invalid")


def test_pages_and_health_need_no_key(guarded: TestClient) -> None:
    for path in ("/", "/docs", "/openapi.json", "/static/app.js", "/livez", "/readyz"):
        assert guarded.get(path).status_code == 200, path


def test_reload_needs_the_admin_role(guarded: TestClient) -> None:
    refused = guarded.post(RELOAD, headers=bearer(READ))
    assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
    assert guarded.post(RELOAD, headers=bearer(ADMIN)).status_code == 200


def test_logs_hold_no_key_and_no_image(guarded: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    image = photograph("cup")
    for headers in (bearer(READ), bearer("wrong-0123456789"), {"X-API-Key": ADMIN}):
        guarded.post("/v1/search/image", headers=headers, files={"file": ("holiday.png", image)})
        guarded.post("/v1/search/image", headers=headers, files={"file": ("holiday.png", image[:100])})
    logged = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    messages = "\n".join(record.getMessage() for record in logged)
    assert not any(secret in messages for secret in (READ, ADMIN, "wrong-0123456789", repr(image[:20])))


def test_rate_limit_counts_by_key(collection: Path) -> None:
    settings = Settings(collection=collection, keys=f"read:{READ} admin:{ADMIN}", rate_limit="3/minute")
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        responses = [client.post("/v1/search/text", headers=bearer(READ), **TEXT) for _ in range(4)]
        assert [response.status_code for response in responses] == [200, 200, 200, 429]
        assert responses[-1].json()["code"] == "rate_limited"
        assert 1 <= int(responses[-1].headers["retry-after"]) <= 60
        assert client.post("/v1/search/text", headers=bearer(ADMIN), **TEXT).status_code == 200
        assert client.get("/v1/items", headers=bearer(READ)).status_code == 200  # thumbnails are no queries


def test_rate_limit_without_keys_counts_by_address(collection: Path) -> None:
    with TestClient(create_app(Settings(collection=collection, rate_limit="1/hour"))) as client:
        wait_until_ready(client)
        assert [client.post("/v1/search/text", **TEXT).status_code for _ in range(2)] == [200, 429]


def test_anonymous_caller_may_search_but_not_administer(collection: Path) -> None:
    with TestClient(create_app(Settings(collection=collection, anonymous=True))) as client:
        wait_until_ready(client)
        assert client.post("/v1/search/text", **TEXT).status_code == 200
        assert client.post(RELOAD).status_code == 403


@pytest.mark.parametrize("rate", ["often", "0/second"])
def test_invalid_rate_limit_is_rejected(collection: Path, rate: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"LOOKALIKE_RATE_LIMIT is '{rate}'"):
        create_app(Settings(collection=collection, rate_limit=rate))


def test_unknown_host_is_rejected_only_without_keys(client: TestClient, guarded: TestClient) -> None:
    for host in (
        "localhost:8000",
        "127.0.0.1",
        "[::1]:8000",
        "[::ffff:10.0.0.1]:8000",
        "10.1.2.3",
        "lookalike:8000",
        "box.local",
        "a.internal.",
        "nas.lan:8000",
        "lookalike.images.svc",
        "lookalike.images.svc.cluster.local:8000",
    ):
        assert client.get("/v1/items", headers={"Host": host}).status_code == 200, host
    for host in (
        "rebound.example",
        "rebound.example:8000",
        "127.0.0.1.nip.example",
        "localhost.example",
        "lan.example",
        "a.svc.example",
        "[bad",
        "a.b]",
        "a,b",
        "user@localhost",
        "localhost/rebound.example",
        "rebound.example:80@localhost",
    ):
        refused = client.post("/v1/search/text", headers={"Host": host}, **TEXT)
        assert (refused.status_code, refused.json()["code"]) == (403, "host_refused"), host
        assert "LOOKALIKE_HOSTS" in refused.json()["detail"]
        assert guarded.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("names", ["images.example other.example", "*"])
def test_listed_host_names_are_trusted(collection: Path, names: str) -> None:
    with TestClient(create_app(Settings(collection=collection, hosts=names))) as client:
        assert client.get("/livez", headers={"Host": "Images.Example:443"}).status_code == 200
        refused = client.get("/livez", headers={"Host": "third.example"}).status_code
        assert refused == (200 if names == "*" else 403)


@pytest.mark.parametrize(("address", "anonymous", "status"), [("127.0.0.1", False, 200), ("10.0.0.5", False, 403),
                                                             ("10.0.0.5", True, 200), ("::1", False, 200),
                                                             ("::ffff:127.0.0.1", False, 200)])  # fmt: skip
def test_public_address_without_keys_is_rejected(collection: Path, address: str, anonymous: bool, status: int) -> None:
    app = create_app(Settings(collection=collection, anonymous=anonymous))

    async def reached_at(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "server": (address, 8000)} if scope["type"] == "http" else scope, receive, send)

    with TestClient(reached_at) as client:
        response = client.get("/livez")
    assert response.status_code == status
    assert status == 200 or response.json()["code"] == "keys_wanted"


def test_page_of_another_origin_may_not_reload(client: TestClient, guarded: TestClient) -> None:
    refused = client.post(RELOAD, headers={"Origin": "https://elsewhere.example"})
    assert (refused.status_code, refused.json()["code"]) == (403, "host_refused")
    for origin in ("null", "http://localhost.elsewhere.example"):
        assert client.post(RELOAD, headers={"Origin": origin}).status_code == 403
    assert client.post(RELOAD, headers={"Origin": "http://testserver"}).status_code == 200
    assert guarded.post(RELOAD, headers={**bearer(ADMIN), "Origin": "https://elsewhere.example"}).status_code == 200


def test_rate_limit_counts_ipv6_by_subscriber_network() -> None:
    limiter, anonymous = RateLimiter("2/hour"), ""
    limiter.count(anonymous, "2001:db8:1:2::1")
    limiter.count(anonymous, "2001:db8:1:2:ffff::1")
    with pytest.raises(RateLimited):
        limiter.count(anonymous, "2001:db8:1:2::3")
    for other in ("2001:db8:1:3::1", "10.0.0.1", "10.0.0.2", "::ffff:10.0.0.3", "::ffff:10.0.0.4", "fe80::1%eth0", ""):
        limiter.count(anonymous, other)


def test_settings_repr_hides_keys(collection: Path) -> None:
    assert READ not in repr(Settings(collection=collection, keys=f"read:{READ}"))


def test_other_origins_get_no_cors_headers(guarded: TestClient) -> None:
    headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for response in (guarded.options("/v1/search/text", headers=headers), guarded.get("/livez", headers=headers)):
        assert not [name for name in response.headers if name.startswith("access-control-")]


def test_allowed_origin_gets_cors_headers(collection: Path) -> None:
    settings = Settings(collection=collection, cors_origins="https://shop.example", keys=f"read:{READ}")
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        preflight = client.options("/v1/search/text", headers=headers)
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        sent = "traceparent, tracestate, baggage, authorization, x-api-key, content-type, cache-control, x-request-id"
        preflight = client.options("/v1/search/text", headers={**headers, "Access-Control-Request-Headers": sent})
        assert (preflight.status_code, preflight.headers["access-control-allow-headers"]) == (200, sent)
        refused = client.post("/v1/search/text", headers={"Origin": "https://shop.example"}, **TEXT)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        other = client.get("/livez", headers={"Origin": "https://elsewhere.example"})
        assert "access-control-allow-origin" not in other.headers


def key_file(path: Path, **digests: str) -> None:
    path.write_text("".join(f'[{name}]\nrole = "read"\nsha256 = "{digest}"\n' for name, digest in digests.items()))


def test_keys_come_and_go_without_a_restart(collection: Path, tmp_path: Path) -> None:
    (first, digest), (second, other) = new_key(), new_key()
    path = tmp_path / "keys.toml"
    key_file(path, first=digest)
    settings = Settings(collection=collection, keys_file=path, watch_seconds=0.02)
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)

        def status(key: str) -> int:
            return client.post("/v1/search/text", headers=bearer(key), **TEXT).status_code

        assert (status(first), status(second)) == (200, 401)
        key_file(path, second=other)
        eventually(lambda: (status(first), status(second)) == (401, 200))
        for invalid in ("[second", "a = " + "9" * 5000):  # the second is TOML, and no number to Python
            replacement = tmp_path / "invalid.toml"
            replacement.write_text(invalid)
            replacement.replace(path)  # at once: truncated and then written, it could be read without any key
            time.sleep(0.1)
            assert status(second) == 200  # the previous keys stay valid
        key_file(path)
        eventually(lambda: status(second) == 401)
        assert client.post("/v1/search/text", **TEXT).status_code == 401  # no key left is not the same as no keys
