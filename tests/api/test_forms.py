"""Multipart forms as clients write them: names of files, texts sent as files, charsets, sizes and damage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.api.small_collection import photograph

CAT = "animals/cat.png"
HORSE = "animals/höhe & breite?#100%.png"
NOT_THE_CAT = {"must": [{"field": "path", "prefix": "animals/"}], "must_not": [{"field": "caption", "equals": "a cat"}]}
IMAGE = b"Content-Type: image/png"


def part(disposition: str, data: bytes, *headers: bytes) -> bytes:
    lines = [b"--x", b"Content-Disposition: form-data; " + disposition.encode(), *headers, b"", data, b""]
    return b"\r\n".join(lines)


def file_part(disposition: str, *headers: bytes) -> bytes:
    return part(f'name="file"; {disposition}' if disposition else 'name="file"', photograph(CAT), *headers)


def send(client: TestClient, *parts: bytes, path: str = "/v1/search/image", end: bytes = b"--x--\r\n") -> Any:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    return client.post(path, content=b"".join(parts) + end, headers=headers)


def first_id(response: Any) -> str:
    assert response.status_code == 200, response.text
    found: str = response.json()["results"][0]["id"]
    return found


@pytest.mark.parametrize(
    ("disposition", "headers"),
    [
        ('filename="cat.png"', [IMAGE]),
        ("filename*=UTF-8''Stra%C3%9Fe.png", [IMAGE]),
        ("filename*=UTF-8''cat.png", []),
        ("filename*=utf-8'en'%e2%82%ac%20rates.png", []),
        ('filename*0="ca"; filename*1="t.png"', []),
        ('filename=""', []),
        ("filename=cat.png; filename*=UTF-8''cat.png", []),
        ("", [IMAGE]),
        ("", [b"Content-Type: application/octet-stream"]),
        ('filename="Straße \\"x\\".png"', [b"content-type: IMAGE/PNG", b"Content-Transfer-Encoding: binary"]),
    ],
)
def test_file_part_is_taken_with_any_name(client: TestClient, disposition: str, headers: list[bytes]) -> None:
    assert first_id(send(client, file_part(disposition, *headers))) == CAT


def test_file_without_name_or_type_is_refused(client: TestClient) -> None:
    for headers in ([], [b"Content-Type: text/plain"]):
        response = send(client, file_part("", *headers))
        assert response.status_code == 422
        assert response.json()["detail"] == "the field 'file' is text; send the image as a file, with a filename"


@pytest.mark.parametrize(
    ("disposition", "headers"),
    [
        ('name="filter"; filename="filter.json"', [b"Content-Type: application/json"]),
        ('name="filter"; filename="filter.json"', [b"Content-Type: application/octet-stream"]),
        ('name="filter"', [b"Content-Type: application/json"]),
        ('name="filter"', [b"Content-Type: text/plain; charset=UTF-8"]),
        ('name="filter"', [b"Content-Type: text/plain; charset=ISO-8859-1"]),
        ("name=filter; filename*=UTF-8''filter.json", []),
    ],
)
def test_filter_may_be_sent_as_a_file(client: TestClient, disposition: str, headers: list[bytes]) -> None:
    text = part(disposition, json.dumps(NOT_THE_CAT).encode(), *headers)
    assert first_id(send(client, file_part('filename="cat.png"'), text)) == HORSE
    assert first_id(send(client, text, part('name="text"', b"a cat"), path="/v1/search/text")) == HORSE


def test_texts_are_read_in_their_charset(client: TestClient) -> None:
    for data, charset in ((HORSE.encode(), b"utf-8"), (HORSE.encode("latin-1"), b"iso-8859-1")):
        response = send(
            client, part('name="id"', data, b"Content-Type: text/plain; charset=" + charset), path="/v1/search/item"
        )
        assert first_id(response) == HORSE
    bom = part('name="id"; filename="id.txt"', b"\xef\xbb\xbf" + CAT.encode())
    assert first_id(send(client, bom, path="/v1/search/item")) == CAT


@pytest.mark.parametrize(
    ("data", "header", "match"),
    [
        (b"h\xf6he", b"Content-Type: text/plain", "is no valid utf-8"),
        (b"cup", b"Content-Type: text/plain; charset=punycode", "charset 'punycode'; send UTF-8"),
        (b"x" * 70_000, b"Content-Type: text/plain", "more than 64 KiB"),
    ],
)
def test_unreadable_text_is_refused(client: TestClient, data: bytes, header: bytes, match: str) -> None:
    response = send(client, part('name="id"', data, header), path="/v1/search/item")
    assert (response.status_code, response.json()["code"]) == (422, "request_invalid")
    assert match in response.json()["detail"]


@pytest.mark.parametrize(
    ("parts", "end"),
    [
        ([file_part('filename="cat.png"')], b""),
        ([file_part('filename="cat.png"')], b"--x"),
        ([part("filename=cat.png", b"data")], b"--x--\r\n"),
        ([part('name=""; filename=cat.png', b"data")], b"--x--\r\n"),
        ([b"no boundary"], b""),
        ([], b""),
        ([part('name="file"; filename="a"', b"data", b"X: " + b"y" * 10_000)], b"--x--\r\n"),
    ],
)
def test_damaged_form_is_refused(client: TestClient, parts: list[bytes], end: bytes) -> None:
    response = send(client, *parts, end=end)
    assert (response.status_code, response.json()["code"]) == (400, "form_invalid"), response.text


@pytest.mark.parametrize(
    "boundary", ["", "; boundary=", "; boundary=" + "y" * 300, "; a*" + "9" * 5_000 + "=b; boundary=x"]
)
def test_form_needs_a_boundary(client: TestClient, boundary: str) -> None:
    headers = {"Content-Type": f"multipart/form-data{boundary}"}
    response = client.post("/v1/search/image", content=file_part('filename="a"') + b"--x--", headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "form_invalid")


def test_form_may_arrive_byte_by_byte(client: TestClient) -> None:
    body = part('name="id"', CAT.encode()) + part('name="limit"', b"1") + b"--x--\r\nepilogue"
    headers = {"Content-Type": 'multipart/form-data; charset=utf-8; boundary="x"'}
    response = client.post("/v1/search/item", content=(bytes([byte]) for byte in body), headers=headers)
    assert [hit["id"] for hit in response.json()["results"]] == [CAT]


def test_urlencoded_form_is_refused_with_the_fix(client: TestClient) -> None:
    response = client.post("/v1/search/text", data={"text": "a cat"})
    assert response.status_code == 415
    expected = "Content-Type is application/x-www-form-urlencoded; send application/json or multipart/form-data"
    assert response.json()["detail"] == expected
