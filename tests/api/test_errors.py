"""Bad requests: status, code and problem document; the next request is not affected."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.api.schemas import Problem
from app.errors import STATUS, status_of
from app.main import create_app
from app.settings import Settings
from lookalike import errors as library
from lookalike.errors import LookalikeError
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import photograph
from tests.bad_images import OddImage, bad_images, odd_images

GOOD = photograph("animals/cat.png")
TEXT, IMAGE, PAIR = "/v1/search/text", "/v1/search/image", "/v1/similarity"
GZIP = {"Content-Encoding": "gzip"}
AS_JSON, AS_PNG, AS_FORM, AS_TEXT, AS_HTML = (
    {"Content-Type": kind}
    for kind in ("application/json", "image/png", "multipart/form-data", "text/plain", "text/html")
)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG header of any size with hardly a pixel behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def chunks(total: int) -> Iterator[bytes]:
    """A body without a Content-Length."""
    for _ in range(total // 65_536):
        yield b"\0" * 65_536


BAD: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "empty text": (TEXT, {"json": {"text": ""}}, 422, "text_empty"),
    "blank text": (TEXT, {"json": {"text": " \t\n\u00a0"}}, 422, "text_empty"),
    "long text": (TEXT, {"json": {"text": "x" * 201}}, 422, "text_too_long"),
    "million characters": (TEXT, {"json": {"text": "x" * 1_000_000}}, 422, "text_too_long"),
    "no text": (TEXT, {"json": {"limit": 3}}, 422, "request_invalid"),
    "text of a wrong type": (TEXT, {"json": {"text": 5}}, 422, "request_invalid"),
    "misspelt field": (TEXT, {"json": {"text": "x", "limt": 3}}, 422, "request_invalid"),
    "not an object": (TEXT, {"json": ["x"]}, 422, "request_invalid"),
    "limit 0": (TEXT, {"json": {"text": "x", "limit": 0}}, 422, "invalid_limit"),
    "limit -1": (TEXT, {"json": {"text": "x", "limit": -1}}, 422, "invalid_limit"),
    "limit over the largest": (TEXT, {"json": {"text": "x", "limit": 51}}, 422, "invalid_limit"),
    "limit of a wrong type": (TEXT, {"json": {"text": "x", "limit": "many"}}, 422, "invalid_limit"),
    "limit with a fraction": (TEXT, {"json": {"text": "x", "limit": 2.5}}, 422, "invalid_limit"),
    "limit that is true": (TEXT, {"json": {"text": "x", "limit": True}}, 422, "invalid_limit"),
    "limit in quotes": (TEXT, {"json": {"text": "x", "limit": "5"}}, 422, "invalid_limit"),
    "limit beyond any integer": (TEXT, {"json": {"text": "x", "limit": 10**30}}, 422, "invalid_limit"),
    "limit in a form": (IMAGE, {"files": {"file": GOOD}, "data": {"limit": "x"}}, 422, "invalid_limit"),
    "limit in the query": (f"{IMAGE}?limit=0", {"files": {"file": GOOD}}, 422, "invalid_limit"),
    "broken JSON": (TEXT, {"content": b'{"text": ', "headers": AS_JSON}, 400, "json_invalid"),
    "no body": (TEXT, {"content": b"", "headers": AS_JSON}, 400, "json_invalid"),
    "not UTF-8": (TEXT, {"content": b'{"text": "\xff"}', "headers": AS_JSON}, 400, "json_invalid"),
    "lone surrogate": (TEXT, {"content": b'{"text": "\\ud800"}', "headers": AS_JSON}, 400, "json_invalid"),
    "deep JSON": (TEXT, {"content": b"[" * 200_000, "headers": AS_JSON}, 400, "json_invalid"),
    "JSON by another name": (TEXT, {"content": b'{"text": "x"}', "headers": AS_TEXT}, 415, "media_type_unsupported"),
    "no content type": (TEXT, {"content": b'{"text": "x"}'}, 415, "media_type_unsupported"),
    "form for text": (TEXT, {"data": {"text": "x"}}, 415, "media_type_unsupported"),
    "compressed JSON": (TEXT, {"content": b"\x1f\x8b", "headers": AS_JSON | GZIP}, 415, "media_type_unsupported"),
    "compressed image": (IMAGE, {"content": b"\x1f\x8b", "headers": AS_PNG | GZIP}, 415, "media_type_unsupported"),
    "compressed pair": (PAIR, {"content": b"\x1f\x8b", "headers": AS_JSON | GZIP}, 415, "media_type_unsupported"),
    "image by another name": (IMAGE, {"content": GOOD, "headers": AS_HTML}, 415, "media_type_unsupported"),
    "form without boundary": (IMAGE, {"content": b"x", "headers": AS_FORM}, 400, "form_invalid"),
    "form without a file": (IMAGE, {"files": {"image": GOOD}}, 422, "request_invalid"),
    "too many files": (IMAGE, {"files": [("file", ("x.png", b"x"))] * 33}, 422, "request_invalid"),
    "file as text": (IMAGE, {"files": {"file": (None, b"x")}}, 422, "request_invalid"),
    "bad base64": (IMAGE, {"json": {"image": "%%%"}}, 422, "base64_invalid"),
    "base64 cut short": (IMAGE, {"json": {"image": "abcde"}}, 422, "base64_invalid"),
    "base64 outside ASCII": (IMAGE, {"json": {"image": "é" * 8}}, 422, "base64_invalid"),
    "data URI that is not base64": (IMAGE, {"json": {"image": "data:image/png,abc"}}, 422, "base64_invalid"),
    "empty file": (IMAGE, {"files": {"file": ("x.jpg", b"")}}, 422, "image_undecodable"),
    "empty raw body": (IMAGE, {"content": b"", "headers": AS_PNG}, 422, "image_undecodable"),
    "text file": (IMAGE, {"files": {"file": ("x.jpg", b"hello there, no image")}}, 422, "image_unsupported"),
    "truncated image": (IMAGE, {"files": {"file": GOOD[: len(GOOD) // 2]}}, 422, "image_undecodable"),
    "truncated JPEG": (IMAGE, {"files": {"file": jpeg(300, 300)[:200]}}, 422, "image_undecodable"),
    "decompression bomb": (IMAGE, {"files": {"file": png_that_claims(60_000, 60_000)}}, 422, "image_too_large"),
    "over the pixel limit": (IMAGE, {"files": {"file": png_that_claims(1001, 1000)}}, 422, "image_too_large"),
    "long strip": (IMAGE, {"files": {"file": png_that_claims(100_000, 1)}}, 422, "image_undecodable"),
    "declared body over the limit": (IMAGE, {"content": b"\0" * 2_000_001, "headers": AS_PNG}, 413, "body_too_large"),
    "streamed body over the limit": (IMAGE, {"content": chunks(3_000_000), "headers": AS_PNG}, 413, "body_too_large"),
    "form over the limit": (IMAGE, {"files": {"file": b"\0" * 2_000_001}}, 413, "body_too_large"),
    "JSON over the limit": (TEXT, {"json": {"text": "x" * 2_000_001}}, 413, "body_too_large"),
    "unknown item": ("/v1/search/item", {"json": {"id": "nobody.png"}}, 404, "unknown_item"),
    "unknown route": ("/v1/nothing", {"json": {}}, 404, "not_found"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_request_is_a_problem_and_affects_no_other(client: TestClient, name: str) -> None:
    path, request, status, code = BAD[name]
    if name == "streamed body over the limit":
        request = {**request, "content": chunks(3_000_000)}
    response = client.post(path, **request)
    assert (response.status_code, response.json().get("code")) == (status, code), response.text[:300]
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(response.json(), extra="forbid")
    assert problem.type == f"urn:lookalike:error:{code}"
    assert problem.instance == path.partition("?")[0]
    assert len(response.content) < 2_000
    good = client.post(IMAGE, files={"file": GOOD}, data={"limit": "1"})
    assert good.json()["results"][0]["id"] == "animals/cat.png"


def test_vector_that_is_not_finite_is_an_encoder_error(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = client.app.state.service.collections.default.pipeline.searcher.encoder  # type: ignore[attr-defined]

    def spoiled(encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda batch: encode(batch) * np.float32("nan")

    for name in ("encode_images", "encode_texts"):
        monkeypatch.setattr(encoder, name, spoiled(getattr(encoder, name)))
    pair = {"a": {"text": "x"}, "b": {"id": "animals/cat.png"}}
    for response in (
        client.post(IMAGE, files={"file": GOOD}),
        client.post(TEXT, json={"text": "x"}),
        client.post(PAIR, json=pair),
    ):
        assert (response.status_code, response.json()["code"]) == (500, "encoder_error")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search/item", {"id": "\x7f" * 500_000 + "end"}),
        (TEXT, {"text": "x", "a" * 1_000_000: 1}),
        (TEXT, {"text": "x", "filter": {"must": [{"field": "b" * 1_000_000, "equals": 1}]}}),
        (TEXT, {"text": "x", "filter": {"must": [{"field": "caption", "equals": 1, "c" * 1_000_000: 1}]}}),
    ],
    ids=["id", "key", "field", "key in a filter"],
)
def test_problem_repeats_little_of_the_request(client: TestClient, path: str, body: dict[str, Any]) -> None:
    response = client.post(path, json=body)
    assert response.status_code in (404, 422)
    assert len(response.content) < 4_000
    assert len(response.json()["detail"]) < 500
    Problem.model_validate(response.json(), extra="forbid")


def test_json_may_begin_with_a_byte_order_mark(client: TestClient) -> None:
    response = client.post(
        TEXT, content=b'\xef\xbb\xbf{"text": "x"}', headers=AS_JSON | {"Content-Encoding": "identity"}
    )
    assert response.status_code == 200


def test_wrong_method_is_a_problem_with_allow(client: TestClient) -> None:
    response = client.get(TEXT)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_images_of_one_pixel_or_row_are_accepted(client: TestClient) -> None:
    for size in ((1, 1), (5000, 1), (1, 5000)):
        response = client.post(IMAGE, files={"file": jpeg(*size)})
        assert response.status_code == 200, response.text


def test_unexpected_error_is_a_500_without_details(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(create_app(settings), raise_server_exceptions=False) as own:
        wait_until_ready(own)
        searcher = own.app.state.service.collections.default.pipeline.searcher  # type: ignore[attr-defined]

        def explode(*_: object) -> None:
            raise RuntimeError("the secret path /root/weights")

        with monkeypatch.context() as patched:
            patched.setattr(searcher.encoder, "encode_images", explode)
            response = own.post(IMAGE, files={"file": GOOD})
        assert (response.status_code, response.json()["code"]) == (500, "internal_error")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-request-id"]
        assert response.headers["content-type"] == "application/problem+json"
        assert "secret" not in response.text
        assert own.post(IMAGE, files={"file": GOOD}).status_code == 200


@pytest.mark.parametrize("odd", [*bad_images(), *odd_images()], ids=lambda odd: odd.name)
def test_odd_image_has_the_code_of_the_indexing_job(client: TestClient, odd: OddImage) -> None:
    response = client.post(IMAGE, files={"file": odd.data})
    expected = (200, None) if odd.code is None else (422, odd.code)
    assert (response.status_code, response.json().get("code")) == expected, response.text[:300]
    assert client.post("/v1/search/item", json={"id": "left.png", "limit": 1}).status_code == 200


def test_concurrent_bad_requests_affect_no_other(settings: Settings) -> None:
    """With limits that a busy machine does not reach."""
    outcomes: list[tuple[int, int]] = []

    def send(name: str) -> None:
        path, request, status, _ = BAD[name]
        bad = patient.post(path, **request)
        good = patient.post("/v1/search/item", json={"id": "left.png", "limit": 1})
        outcomes.append((bad.status_code - status, good.status_code))

    names = [name for name in BAD if "streamed" not in name]
    unhurried = settings.model_copy(update={"max_wait": 60.0, "deadline": 60.0})
    with TestClient(create_app(unhurried), raise_server_exceptions=False) as patient:
        wait_until_ready(patient)
        threads = [threading.Thread(target=send, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [(0, 200)] * len(names)


def all_errors(root: type[LookalikeError] = LookalikeError) -> Iterator[type[LookalikeError]]:
    yield root
    for child in root.__subclasses__():
        yield from all_errors(child)


def test_every_error_of_the_library_has_a_status() -> None:
    for error in all_errors():
        assert 400 <= status_of(error) < 600
    assert status_of(library.ImageTooLarge) == 422
    assert status_of(library.UnknownItem) == 404
    assert status_of(library.ChecksumMismatch) == 500
    assert LookalikeError in STATUS
