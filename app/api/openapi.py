"""The OpenAPI document: request bodies that endpoints parse themselves, and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api import classify_schemas, embedding_schemas, matrix_schemas, schemas, write_schemas
from app.errors import (
    INTERNAL_ERROR,
    Base64Invalid,
    BodyTooLarge,
    BodyTooSlow,
    DeadlineExceeded,
    FormInvalid,
    HostRefused,
    JsonInvalid,
    KeyInvalid,
    KeyMissing,
    KeysRequired,
    MediaTypeUnsupported,
    NotReady,
    Overloaded,
    RequestError,
    RoleMissing,
    UrlDisabled,
    UrlFailed,
    UrlRefused,
    status_of,
)
from app.middleware.openai_errors import openai_status
from app.middleware.problems import MEDIA_TYPE
from lookalike.errors import (
    FilterInvalid,
    ImageTooLarge,
    ImageUndecodable,
    ImageUnsupported,
    InvalidLimit,
    LookalikeError,
    QueryError,
    StoreUnavailable,
    TextEmpty,
    TextTooLong,
    TextUnsupported,
)

Schema = dict[str, Any]

IMAGE_FILE = "photos/chelsea.png"
"""The image of examples: the sample gallery has it."""

_MODULES = (schemas, embedding_schemas, matrix_schemas, classify_schemas, write_schemas)
"""Where the models are that bodies and problems refer to."""
_REF = "#/components/schemas/{model}"
_REFERENCE = re.compile(r'"#/components/schemas/(\w+)"')
_DESCRIPTION = """\
Search a collection of images by text, by image or by item, and compare pairs. A score is the exact cosine similarity
of two embeddings: the same image scores 1.0. Every error is `application/problem+json` with a stable `code`.
"""

Errors = tuple[type[LookalikeError], ...]

ACCESS: Errors = (KeyMissing, KeyInvalid)
ADMISSION: Errors = (NotReady, Overloaded, DeadlineExceeded, StoreUnavailable)
BODY: Errors = (JsonInvalid, BodyTooSlow, MediaTypeUnsupported, RequestError)
OPTIONS: Errors = (InvalidLimit, FilterInvalid, QueryError)
TEXT: Errors = (TextEmpty, TextTooLong, TextUnsupported)
IMAGE: Errors = (
    FormInvalid,
    Base64Invalid,
    ImageTooLarge,
    ImageUndecodable,
    ImageUnsupported,
    UrlDisabled,
    UrlRefused,
    UrlFailed,
)
"""Errors by what an endpoint takes, for `errors`."""
_ANY: Errors = (RoleMissing, KeysRequired, HostRefused, BodyTooLarge)


class FormField(NamedTuple):
    """A field of a multipart form; `kind` is a JSON type, or `binary` for a file."""

    kind: str
    description: str
    example: object = None


def json_body(model: type[BaseModel]) -> Schema:
    """Return a JSON body of a model in `app.api.schemas`."""
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def form_body(fields: dict[str, FormField], required: list[str]) -> Schema:
    """Return a multipart form."""
    properties = {name: _form_property(field) for name, field in fields.items()}
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"multipart/form-data": {"schema": {**schema, "required": required} if required else schema}}


def _form_property(field: FormField) -> Schema:
    kind: Schema = {"type": "string", "format": "binary"} if field.kind == "binary" else {"type": field.kind}
    examples = {} if field.example is None else {"examples": [field.example]}
    return {**kind, "description": field.description, **examples}


def raw_body() -> Schema:
    """Return a body that is an image file."""
    schema = {"type": "string", "format": "binary", "description": "The image file itself.", "examples": [IMAGE_FILE]}
    return {"image/*": {"schema": schema}}


def request_body(*contents: Schema) -> Schema:
    """Return the alternative bodies of an endpoint, for `openapi_extra`."""
    return {
        "requestBody": {"required": True, "content": {kind: body for part in contents for kind, body in part.items()}}
    }


def errors(*classes: type[LookalikeError]) -> dict[int | str, Schema]:
    """Return the problem documents of errors, and of those that any endpoint may have: 403, 413 and 500."""
    return _problems(classes, status_of, schemas.Problem)


def openai_errors(*classes: type[LookalikeError]) -> dict[int | str, Schema]:
    """Return the same for a path of OpenAI's API, where they have other statuses and an `error` object."""
    return _problems(classes, lambda error: openai_status(status_of(error)), embedding_schemas.OpenAIProblem)


def _problems(
    classes: Errors, status: Callable[[type[LookalikeError]], HTTPStatus], model: type[BaseModel]
) -> dict[int | str, Schema]:
    codes: dict[HTTPStatus, list[str]] = {}
    for error in dict.fromkeys((*classes, *_ANY)):
        codes.setdefault(status(error), []).append(error.code)
    codes[HTTPStatus.INTERNAL_SERVER_ERROR] = [INTERNAL_ERROR]
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return {
        int(code): {"description": f"{code.phrase}: `{'`, `'.join(names)}`.", "content": content}
        for code, names in codes.items()
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
    _, models = models_json_schema([(_model(name), "validation") for name in names], ref_template=_REF)
    components.update(models["$defs"])


def _model(name: str) -> type[BaseModel]:
    model: type[BaseModel] = next(getattr(module, name) for module in _MODULES if hasattr(module, name))
    return model


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
