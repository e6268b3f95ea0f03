"""The tools of `lookalike mcp`: read-only searches of a running service, for AI assistants.

Every tool is one or two requests of the Python client. What the service rejects becomes a tool error with its message.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ImageContent, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from lookalike.messages import quoted, unknown_name
from lookalike_client import ApiError, AsyncClient, LookalikeError

MAX_LIMIT = 100
"""Largest number of results of a tool call: they are for a model to read."""

_INSTRUCTIONS = (
    "Search a collection of images by a description in words, by an example image or by an item. Results have ids: "
    "`get_image` shows one. `list_collections` says what can be searched, `describe_fields` what `filter` can name. A "
    "low probability, or `no_match`, means that the collection probably has no such image."
)
_MAX_PATH_CHARACTERS = 4096
_LEFT_OUT = ("took_ms", "histogram")
"""Members of responses that are of no use to a model."""

_IMAGE = "An image: the path of a file on this machine, an http(s) URL, a base64 data URI, or the file as base64."
_FILTER = (
    "Only items whose metadata passes; `describe_fields` lists the columns. An object of lists `must`, `should` and "
    '`must_not`: {"must": [{"field": "width", "range": {"gte": 500}}, {"field": "format", "equals": "JPEG"}]}. '
    "A condition names a column and one test: equals, in, range (gt, gte, lt, lte), prefix or exists."
)

Collection = Annotated[
    str | None, Field(description="Name of a collection, as `list_collections` has it; the default one if left out.")
]


class Side(BaseModel):
    """One side of a comparison: exactly one of the three."""

    model_config = ConfigDict(extra="forbid")

    image: str | None = Field(default=None, description=_IMAGE)
    id: str | None = Field(default=None, description="Id of an item of the collection.")
    text: str | None = Field(default=None, description="A description in words.")


class Tools:
    """The tools, over one service.

    Args:
        url: the service's address.
        key: API key; None for a service without keys.
        collection: name of the collection that tools use by default; None for the service's own default.
    """

    def __init__(self, url: str, key: str | None = None, collection: str | None = None) -> None:
        self._url = url
        self._key = key
        self._default = collection
        self._clients: dict[str | None, AsyncClient] = {}

    async def search_images(
        self,
        text: Annotated[str | None, Field(description="What the images show, in words.")] = None,
        image: Annotated[str | None, Field(description=_IMAGE)] = None,
        id: Annotated[str | None, Field(description="Id of an item, to find images like it.")] = None,
        filter: Annotated[dict[str, Any] | None, Field(description=_FILTER)] = None,
        limit: Annotated[int, Field(description="Maximum number of results.", ge=1, le=MAX_LIMIT)] = 10,
        collection: Collection = None,
    ) -> dict[str, Any]:
        """Find images by a text, by an example image, or by an item. Pass exactly one of text, image and id.

        Results are sorted by score, a cosine between -1 and 1. `probability` says how likely a result truly matches.
        """
        query = _query({"text": text, "image": image, "id": id})
        with _tool_errors():
            result = await self._client(collection).search(**query, filter=filter, limit=limit)
        return _plain(asdict(result))

    async def get_image(
        self, id: Annotated[str, Field(description="Id of the item.")], collection: Collection = None
    ) -> CallToolResult:
        """Show an image of the collection: its metadata, and its thumbnail of at most 256 pixels a side."""
        client = self._client(collection)
        with _tool_errors():
            item = await client.item(id)
            thumbnail = await client.thumbnail(id) if item.thumbnail_url is not None else None
        body = _plain(asdict(item))
        content = [TextContent(type="text", text=_json(body))]
        if thumbnail is None:
            return CallToolResult(content=[*content], structured_content=body)
        shown = ImageContent(
            type="image", data=base64.b64encode(thumbnail.data).decode(), mime_type=thumbnail.media_type
        )
        return CallToolResult(content=[*content, shown], structured_content=body)

    async def compare_images(
        self,
        a: Annotated[Side, Field(description="The one side.")],
        b: Annotated[Side, Field(description="The other side.")],
        threshold: Annotated[
            float | None, Field(description="Distance up to which the sides are similar; the encoder's by default.")
        ] = None,
        collection: Collection = None,
    ) -> dict[str, Any]:
        """Compare two images, items or texts: their cosine similarity, and the probability that they match."""
        sides = {name: _query(side.model_dump(), f"{name}: ") for name, side in (("a", a), ("b", b))}
        with _tool_errors():
            result = await self._client(collection).compare(**sides, threshold=threshold)
        return _plain(asdict(result))

    async def list_collections(self) -> dict[str, Any]:
        """List the collections that can be searched; the default one is first.

        `text` says whether texts can be searched for, and `languages` in which languages.
        """
        with _tool_errors():
            return {"collections": [_plain(asdict(each)) for each in await self._client(None).collections()]}

    async def describe_fields(self, collection: Collection = None) -> dict[str, Any]:
        """List the metadata columns that a filter can name: type, frequent values, smallest and largest value."""
        with _tool_errors():
            return _plain(asdict(await self._client(collection).fields()))

    async def close(self) -> None:
        """Close the connections."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    def _client(self, collection: str | None) -> AsyncClient:
        name = collection or self._default
        if name not in self._clients:
            self._clients[name] = AsyncClient(self._url, key=self._key, collection=name)
        return self._clients[name]


class _Server(MCPServer):
    """Refuses unknown arguments, which the SDK would ignore: results without a misspelled filter would mislead."""

    @override
    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        for tool in await self.list_tools():
            known = tool.input_schema.get("properties", {})
            if tool.name == name and (unknown := next((each for each in arguments if each not in known), None)):
                raise ToolError(unknown_name("argument", unknown, known))
        return await super().call_tool(name, arguments, context)


def mcp_server(tools: Tools) -> MCPServer:
    """Return a server of the Model Context Protocol that has the tools."""

    @asynccontextmanager
    async def lifespan(_: MCPServer) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await tools.close()

    server = _Server(
        "lookalike",
        title="Lookalike",
        instructions=_INSTRUCTIONS,
        version=version("lookalike"),
        log_level="WARNING",
        lifespan=lifespan,
    )
    read_only = ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    for tool in (
        tools.search_images,
        tools.get_image,
        tools.compare_images,
        tools.list_collections,
        tools.describe_fields,
    ):
        server.add_tool(tool, annotations=read_only)
    return server


@contextmanager
def _tool_errors() -> Iterator[None]:
    """Raise the client's errors as ToolError, which a model can read."""
    try:
        yield
    except ApiError as error:
        raise ToolError(f"{error.detail} [{error.code}]") from error
    except LookalikeError as error:
        raise ToolError(str(error)) from error


def _query(inputs: dict[str, str | None], where: str = "") -> dict[str, Any]:
    """Return the one input that is not None, under its name in the client; raises ToolError."""
    given = {name: value for name, value in inputs.items() if value is not None}
    if len(given) != 1:
        passed = " and ".join(given) or "none"
        raise ToolError(f"{where}pass exactly one of {', '.join(inputs)}; there is {passed}")
    ((name, value),) = given.items()
    return _image(value, where) if name == "image" else {name: value}


def _image(value: str, where: str = "") -> dict[str, Any]:
    """Return the client's argument for an image: a URL, or the bytes of a file, of a data URI or of base64."""
    if value.lower().startswith(("http://", "https://")):
        return {"image_url": value}
    if value.lower().startswith("data:"):
        return {"image": _decoded(value.partition(",")[2], value, where)}
    if len(value) <= _MAX_PATH_CHARACTERS and (data := _file(value)) is not None:
        return {"image": data}
    return {"image": _decoded(value, value, where)}


def _file(name: str) -> bytes | None:
    """Return the bytes of a file; None if there is none of that name. Raises ToolError."""
    try:
        path = Path(name).expanduser()
        return path.read_bytes() if path.is_file() else None
    except (OSError, ValueError, RuntimeError) as error:
        raise ToolError(f"{quoted(name)} can't be read: {error}") from error


def _decoded(text: str, value: str, where: str) -> bytes:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise ToolError(f"{where}image is {quoted(value)}: no file of that name, no http(s) URL, and no base64")
    return data


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return a result without what it has no value for; metadata stays as it is."""
    return {
        name: part if name == "metadata" else _plain_value(part)
        for name, part in value.items()
        if part is not None and name not in _LEFT_OUT
    }


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _plain(value)
    return [_plain_value(part) for part in value] if isinstance(value, list | tuple) else value
