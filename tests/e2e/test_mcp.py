"""`lookalike mcp` as an assistant uses it: the SDK's own client starts it and calls its tools over stdin and stdout."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, ImageContent, TextContent
from PIL import Image

from tests.e2e.commands import free_port, invoke, serving

TOOLS = ["search_images", "get_image", "compare_images", "list_collections", "describe_fields"]


@pytest.fixture(scope="module")
def address(sample_collection: Path) -> Iterator[str]:
    """The address of a service with the sample gallery."""
    with serving(sample_collection) as address:
        yield address


@asynccontextmanager
async def assistant(*arguments: str, **environment: str) -> AsyncIterator[Client]:
    """A client of `lookalike mcp ARGUMENTS`."""
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "cli.main", "mcp", *arguments], env=environment or None
    )
    async with Client(command, read_timeout_seconds=120) as client:
        yield client


def body(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def failure(result: CallToolResult) -> str:
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def test_tools_are_listed_as_read_only(address: str) -> None:
    async with assistant("--url", address) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == TOOLS
        for tool in tools:
            assert tool.description
            assert tool.annotations is not None
            assert (tool.annotations.read_only_hint, tool.annotations.destructive_hint) == (True, False)
        search = tools[0].input_schema["properties"]
        assert list(search) == ["text", "image", "id", "filter", "limit", "collection"]
        assert all(parameter["description"] for parameter in search.values())


async def test_search_by_text_image_and_item(address: str, gallery: Path) -> None:
    data = (gallery / "coffee.png").read_bytes()
    encoded = base64.b64encode(data).decode()
    queries: list[dict[str, Any]] = [
        {"text": "a cup of coffee"},
        {"image": str(gallery / "coffee.png")},
        {"image": encoded},
        {"image": f"data:image/png;base64,{encoded}"},
        {"id": "coffee.png", "filter": {"must": [{"field": "caption", "equals": "coffee"}]}},
    ]
    async with assistant("--url", address) as client:
        for query in queries[:4]:
            found = body(await client.call_tool("search_images", {**query, "limit": 3}))
            assert len(found["results"]) == 3
            best = found["results"][0]
            assert (best["id"], best["metadata"]["caption"]) == ("coffee.png", "coffee")
            assert "took_ms" not in found
            assert best["score"] == pytest.approx(1, abs=0.001) if "image" in query else best["score"] < 0.5
        everything = body(await client.call_tool("search_images", {"id": "coffee.png", "limit": 100}))
        filtered = body(await client.call_tool("search_images", {**queries[4], "limit": 100}))
        assert len(everything["results"]) > len(filtered["results"])


async def test_get_image_shows_metadata_and_thumbnail(address: str) -> None:
    async with assistant("--url", address) as client:
        result = await client.call_tool("get_image", {"id": "chelsea.png"})
        assert body(result)["metadata"]["width"] == 451
        text, image = result.content
        assert isinstance(text, TextContent)
        assert '"chelsea.png"' in text.text
        assert isinstance(image, ImageContent)
        with Image.open(io.BytesIO(base64.b64decode(image.data))) as thumbnail:
            assert max(thumbnail.size) <= 256
            assert image.mime_type == f"image/{(thumbnail.format or '').lower()}"


async def test_compare_images_items_and_texts(address: str, gallery: Path) -> None:
    async with assistant("--url", address) as client:
        one = {"a": {"image": str(gallery / "chelsea.png")}, "b": {"id": "chelsea.png"}}
        same = body(await client.call_tool("compare_images", one))
        assert (same["cosine"], same["similar"]) == (pytest.approx(1, abs=0.001), True)
        other = body(await client.call_tool("compare_images", {**one, "b": {"text": "a rocket"}, "threshold": 0.01}))
        assert (other["kinds"], other["similar"], other["threshold"]) == (["image", "text"], False, 0.01)


async def test_collections_and_fields_are_described(address: str) -> None:
    async with assistant("--url", address) as client:
        (collection,) = body(await client.call_tool("list_collections"))["collections"]
        assert (collection["items"], collection["text"]) == (24, True)
        fields = body(await client.call_tool("describe_fields", {"collection": collection["name"]}))["fields"]
        names = {field["name"]: field for field in fields}
        assert {"id", "caption", "width"} <= set(names)
        assert names["width"]["minimum"] < names["width"]["maximum"]
        assert "histogram" not in names["width"]


ERRORS: list[tuple[str, dict[str, Any], str]] = [
    ("search_images", {}, "pass exactly one of text, image, id; there is none"),
    ("search_images", {"text": "a", "id": "b"}, "pass exactly one of text, image, id; there is text and id"),
    ("search_images", {"text": "  "}, "[text_empty]"),
    ("search_images", {"text": "a", "limit": 101}, "limit"),
    ("search_images", {"text": "a", "filter": {"must": [{"field": "widht", "equals": 1}]}}, "widht"),
    ("search_images", {"text": "a", "collection": "nothing"}, "nothing"),
    ("search_images", {"image": "no/such/file.png"}, "image is 'no/such/file.png': no file of that name"),
    ("search_images", {"image": "data:image/png;base64,AAAA"}, "[image_unsupported]"),
    ("search_images", {"image": "https://example.org/cat.jpg"}, "[url_disabled]"),
    ("get_image", {"id": "nothing.png"}, "[unknown_item]"),
    ("compare_images", {"a": {"text": "a"}, "b": {}}, "b: pass exactly one of image, id, text; there is none"),
    ("describe_fields", {"collection": "nothing"}, "nothing"),
    ("search_images", {"text": "a", "filters": {}}, "unknown argument 'filters'; did you mean 'filter'?"),
    ("list_collections", {"limit": 1}, "unknown argument 'limit'"),
]


async def test_errors_have_the_message_of_the_service(address: str) -> None:
    async with assistant("--url", address) as client:
        for tool, arguments, message in ERRORS:
            assert message in failure(await client.call_tool(tool, arguments)), (tool, arguments)
        assert not (await client.call_tool("list_collections")).is_error  # the server goes on


async def test_key_comes_from_the_environment(sample_collection: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    made = invoke("key", "assistant", "--role", "read", "--file", keys)
    assert made.returncode == 0, made.stderr
    with serving(sample_collection, LOOKALIKE_KEYS_FILE=str(keys)) as address:
        async with assistant("--url", address) as client:
            assert "key" in failure(await client.call_tool("list_collections"))
        async with assistant("--url", address, "--key-env", "MY_KEY", MY_KEY=made.stdout.split()[-1]) as client:
            assert body(await client.call_tool("list_collections"))["collections"]


async def test_service_that_is_down_is_an_error_of_the_tool() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with assistant("--url", url) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
        assert url in failure(await client.call_tool("list_collections"))


def test_invalid_options_are_one_line() -> None:
    for arguments, message in (
        (["--url", "localhost:8000"], "--url is 'localhost:8000'; it must begin with http:// or https://"),
        (["--key-env", "NO_SUCH_VARIABLE"], "the environment variable NO_SUCH_VARIABLE is not set"),
    ):
        done = invoke("mcp", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: {message}")


def test_missing_extra_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.mcp.find_spec", lambda name: None if name == "mcp" else object())
    done = invoke("mcp")
    assert done.returncode == 1
    assert done.stderr == "error: mcp is not installed: pip install 'lookalike[mcp]' [extra_missing]\n"
