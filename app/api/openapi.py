"""The OpenAPI document: request bodies that endpoints parse themselves, and errors."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api import schemas
from app.middleware.problems import MEDIA_TYPE

Schema = dict[str, Any]

_REF = "#/components/schemas/{model}"
_REFERENCE = re.compile(r'"#/components/schemas/(\w+)"')
_DESCRIPTION = """\
Finds images by image, by text and by pair. Scores are exact cosine similarities: the same image scores 1.0.
Every error is `application/problem+json` with a stable `code`.
"""


def json_body(model: type[BaseModel]) -> Schema:
    """Return a JSON body of a model in `app.api.schemas`."""
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def form_body(fields: dict[str, str], required: list[str]) -> Schema:
    """Return a multipart form, from field names and JSON types, or `binary` for a file."""
    properties = {
        name: {"type": "string", "format": "binary"} if kind == "binary" else {"type": kind}
        for name, kind in fields.items()
    }
    schema: Schema = {"type": "object", "properties": properties}
    return {"multipart/form-data": {"schema": {**schema, "required": required} if required else schema}}


def raw_body() -> Schema:
    """Return a body that is an image file."""
    return {"image/*": {"schema": {"type": "string", "format": "binary"}}}


def request_body(*contents: Schema) -> Schema:
    """Return the alternative bodies of an endpoint, for `openapi_extra`."""
    return {
        "requestBody": {"required": True, "content": {kind: body for part in contents for kind, body in part.items()}}
    }


def errors(*statuses: int) -> dict[int | str, Schema]:
    """Return the problem documents of some statuses, and of those that any endpoint may have: 403, 413 and 500."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=schemas.Problem.__name__)}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content} for status in (*statuses, 403, 413, 500)
    }


def document(app: FastAPI) -> Schema:
    """Return the application's OpenAPI document, with the models of bodies and problems."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )  # fmt: skip
        _add_models(schema)
        _drop_framework_errors(schema)
        app.openapi_schema = schema
    return app.openapi_schema


def _add_models(schema: Schema) -> None:
    """Add the models that bodies and problems refer to; FastAPI adds those that routes declare."""
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    names = sorted(set(_REFERENCE.findall(json.dumps(schema))) - components.keys())
    _, models = models_json_schema([(getattr(schemas, name), "validation") for name in names], ref_template=_REF)
    components.update(models["$defs"])


def _drop_framework_errors(schema: Schema) -> None:
    """Remove the 422 that FastAPI adds for path parameters: any string is an id here."""
    foreign = ("HTTPValidationError", "ValidationError")
    for name in foreign:
        schema["components"]["schemas"].pop(name, None)
    for path in schema["paths"].values():
        for operation in path.values():
            for status, response in list(operation["responses"].items()):
                if any(name in str(response) for name in foreign):
                    del operation["responses"][status]
