"""Example requests with curl, from the examples in the OpenAPI document."""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Callable
from shlex import quote
from typing import Any
from urllib.parse import urlencode

Schema = dict[str, Any]

ADDRESS = "http://127.0.0.1:8000"


def examples(method: str, path: str, operation: Schema, example: Callable[[Schema], Any]) -> str:
    """Return one command for each kind of body, or one for a request without a body.

    Args:
        method: in lower case.
        path: with its parameters in braces; required ones of the query string are added.
        operation: from the document.
        example: returns the example of a JSON body, from its schema.
    """
    url = quote(ADDRESS + _with_values(path, operation.get("parameters", [])))
    contents = operation.get("requestBody", {}).get("content", {})
    implied = "post" if contents else "get"
    command = "curl -s" if method == implied else f"curl -s -X {method.upper()}"
    if not contents:
        return f"{command} {url}{_output(operation)}"
    return "\n".join(f"{command} {url} {_body(kind, body['schema'], example)}" for kind, body in contents.items())


def _with_values(path: str, parameters: list[Schema]) -> str:
    values = {each["name"]: str(each["schema"]["examples"][0]) for each in parameters if each.get("required")}
    query = {name: value for name, value in values.items() if f"{{{name}}}" not in path}
    filled = re.sub(r"{(\w+)}", lambda found: values[found[1]], path)
    return f"{filled}?{urlencode(query)}" if query else filled


def _output(operation: Schema) -> str:
    """Return the option that writes a response to a file, if it is an image."""
    kinds = operation["responses"]["200"].get("content", {})
    return " -o thumbnail" if all(kind.startswith("image/") for kind in kinds) else ""


def _body(kind: str, schema: Schema, example: Callable[[Schema], Any]) -> str:
    if kind == "multipart/form-data":
        return " ".join(_form_field(name, field) for name, field in schema["properties"].items() if "examples" in field)
    if kind == "application/json":
        return f"-H 'Content-Type: {kind}' \\\n  -d {quote(json.dumps(example(schema)))}"
    file = schema["examples"][0]
    return f"-H 'Content-Type: {mimetypes.guess_type(file)[0]}' --data-binary @{file}"


def _form_field(name: str, field: Schema) -> str:
    at = "@" if field.get("format") == "binary" else ""
    return f"-F {quote(f'{name}={at}' + str(field['examples'][0]))}"
