"""docs/reference/http-api.md: the OpenAPI document as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from scripts.reference.curl import examples
from scripts.reference.json_schema import default_of, fields_table, in_order, range_of, reference, type_of
from scripts.reference.markdown import block, json_block, linked, paragraphs, table, wrap

Schema = dict[str, Any]

_INTRODUCTION = """\
# HTTP API

The API of the service that `lookalike serve` starts, at `http://127.0.0.1:8000` by default.
[Search from code](../guides/search-from-code.md) is the guide. A running service shows this API at `/docs`, where you
can try it out. [openapi.json](../openapi.json) is the document for tools.

<!-- asks -->
```sh
curl -s http://127.0.0.1:8000/v1/search/text -H 'Content-Type: application/json' \\
  -d '{"text": "a cat", "limit": 2}'
```

The examples on this page use the sample gallery. `photos` is its folder, and the service serves it as `my-collection`:

```sh
lookalike gallery photos
lookalike index photos --out my-collection
lookalike serve my-collection
```

## Requests and responses

- **Keys.** With keys, requests to `/v1` and `/metrics` need one: `Authorization: Bearer KEY` or `X-API-Key: KEY`.
  The role `read` may search and list items, `admin` may also reload collections. See [Secure](../guides/secure.md).
- **Collections.** A short path such as `/v1/search/text` uses the default collection. The path
  `/v1/collections/{name}/search/text` is the same for the collection `name`. An unknown name is
  404 [`unknown_collection`](errors.md#unknown_collection).
- **JSON.** A JSON body with a field that is not listed here is rejected. An unknown form field or query parameter is
  ignored. Ignore fields of a response that you don't know.
- **Metadata.** Columns keep their type where JSON has it. A decimal and a date become text, for example:
  [Metadata values](../guides/search-from-code.md#metadata-values).
- **Errors.** Every error is a [Problem](#problem) with a stable `code`. [Errors](errors.md) lists the codes.
- **Retries.** Responses with 429 and 503 have `Retry-After`: the seconds after which to retry.
- **Request ids.** Every response has an `X-Request-ID`. It is the request's own if that has at most 128 letters, digits
  and `._:-`. The log repeats it.
- **Protocol.** HTTP/1.1 and 1.0. An `Upgrade` to HTTP/2 or to a WebSocket is ignored.

A *score* is the exact cosine similarity of two embeddings, from -1 to 1, whatever the index. A *distance* is
1 - cosine, from 0 to 2.

`GET /` is the search page, `GET /docs` this API to try out, and `GET /openapi.json` its document."""

_SCHEMAS = """\
## Schemas

Objects that several requests or responses contain."""


def page(document: Schema) -> str:
    """Return the page."""
    api = _Api(document)
    rows = [
        (f"[`{method.upper()} {path}`](#{_anchor(method, path)})", each["summary"])
        for method, path, each in api.operations
    ]
    parts = [_INTRODUCTION, "## Operations", table(("operation", ""), rows)]
    for tag in dict.fromkeys(operation["tags"][0] for *_, operation in api.operations):
        parts.append(f"## {tag.capitalize()}")
        parts += [api.operation(*each) for each in api.operations if each[2]["tags"][0] == tag]
    parts += [_SCHEMAS, *(api.shared_model(name) for name in sorted(api.anchors))]
    return "\n\n".join(parts) + "\n"


class _Api:
    """The document's operations and models.

    Attributes:
        operations: method, path and operation; without those that repeat another for a collection by name.
        anchors: the headings of the models that are not part of one operation alone.
    """

    def __init__(self, document: Schema) -> None:
        self.models: dict[str, Schema] = document["components"]["schemas"]
        self.paths: dict[str, Schema] = document["paths"]
        self.operations = list(self._operations())
        used = json.dumps([operation for *_, operation in self.operations])
        own = {name for name in self.models if _count(name, used) == 1 and not _count(name, json.dumps(self.models))}
        self.anchors = {name: f"#{name.lower()}" for name in self.models if name not in own}

    def _operations(self) -> Iterator[tuple[str, str, Schema]]:
        for path, methods in self.paths.items():
            short = path.replace("/v1/collections/{name}/", "/v1/")
            if short == path or short not in self.paths:
                yield from ((method, path, operation) for method, operation in methods.items())

    def operation(self, method: str, path: str, operation: Schema) -> str:
        """Return the section of an operation."""
        parts = [f"### {method.upper()} {path}", paragraphs(operation["description"])]
        named = path.replace("/v1/", "/v1/collections/{name}/", 1)
        if named != path and named in self.paths:
            parts.append(f"For a collection by name: `{method.upper()} {named}`.")
        marker = "writes" if operation["tags"] == ["writes"] else "asks"
        parts.append(f"<!-- {marker} -->\n" + block("sh", examples(method, path, operation, self._json_example)))
        parts += self._parameters(operation) + self._bodies(operation)
        return "\n\n".join([*parts, *self._responses(operation)])

    def _json_example(self, schema: Schema) -> Any:
        return self.ordered(self.models[reference(schema)]["examples"][0], schema)

    def _parameters(self, operation: Schema) -> list[str]:
        rows = [
            (
                f"`{each['name']}`",
                each["in"],
                type_of(each["schema"], self.anchors),
                default_of(each["schema"], required=each.get("required", False)),
                range_of(each["schema"]),
                linked(each["description"], self.anchors),
            )
            for each in operation.get("parameters", [])
        ]
        header = ("parameter", "in", "type", "default", "range", "description")
        return ["**Parameters:**", table(header, rows)] if rows else []

    def _bodies(self, operation: Schema) -> list[str]:
        parts = []
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            schema = self.models.get(reference(content["schema"]), content["schema"])
            parts.append(f"**Body, `{kind}`:** {self._about(schema)}".strip())
            if "properties" in schema:
                parts.append(fields_table(schema, self.anchors, request=True))
        return parts

    def _about(self, schema: Schema) -> str:
        return linked(schema.get("description", ""), self.anchors)

    def _responses(self, operation: Schema) -> list[str]:
        parts, errors = [], []
        for status, response in sorted(operation["responses"].items()):
            if int(status) >= 400:
                phrase, _, codes = response["description"].partition(": ")
                errors.append((f"{status} {phrase}", linked(codes.rstrip("."))))
            else:
                parts += self._response(status, response)
        return [*parts, "**Errors:**", table(("status", "code"), errors)]

    def _response(self, status: str, response: Schema) -> list[str]:
        contents = response.get("content", {})
        name = reference(contents.get("application/json", {}).get("schema", {}))
        if not name:
            kinds = " or ".join(f"`{kind}`" for kind in contents)
            return [wrap(f"**Response {status}{', ' + kinds if kinds else ''}:** {response['description']}")]
        model = self.models[name]
        if name in self.anchors:
            parts = [f"**Response {status}:** a [{name}]({self.anchors[name]})."]
        else:
            parts = [
                wrap(f"**Response {status}:** {self._about(model)}"),
                fields_table(model, self.anchors, request=False),
            ]
        return [*parts, *self._examples(model, 1)]

    def shared_model(self, name: str) -> str:
        """Return the section of a model."""
        model = self.models[name]
        request = "additionalProperties" in model  # models of requests forbid others
        fields = fields_table(model, self.anchors, request=request)
        return "\n\n".join([f"### {name}", paragraphs(model["description"]), fields, *self._examples(model)])

    def _examples(self, model: Schema, count: int | None = None) -> list[str]:
        return [json_block(self.ordered(example, model)) for example in model.get("examples", [])[:count]]

    def ordered(self, value: Any, schema: Schema) -> Any:
        """Return an example with its keys in the order of the model's fields."""
        schema = self.models.get(reference(schema), schema)
        if isinstance(value, list):
            return [self.ordered(each, schema.get("items", {})) for each in value]
        if not isinstance(value, dict):
            return value
        if "properties" not in schema:
            entry = schema.get("additionalProperties", {})
            return {name: self.ordered(each, entry) for name, each in value.items()} if entry is not True else value
        shown = value.keys() | schema.get("required", [])  # FastAPI leaves null out of examples
        return {name: self.ordered(value.get(name), field) for name, field in in_order(schema) if name in shown}


def _anchor(method: str, path: str) -> str:
    return f"{method}-{re.sub(r'[^a-z0-9_]', '', path)}"


def _count(name: str, text: str) -> int:
    return len(re.findall(rf'"#/components/schemas/{name}"', text))
