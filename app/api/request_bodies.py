"""Request bodies: media types, JSON and base64; `app.api.forms` reads forms.

Bodies are kept in memory, bounded by the body limit; no image is written to disk. The decoder checks whether bytes are
an image.
"""

from __future__ import annotations

import base64
import binascii
from codecs import BOM_UTF8
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.errors import Base64Invalid, MediaTypeUnsupported, RequestError
from app.validation import MAX_FIELD_ERRORS, validation_error
from lookalike.errors import InvalidLimit, LookalikeError
from lookalike.filters import filter_error

Model = TypeVar("Model", bound=BaseModel)

JSON = "application/json"
_MAX_JSON_VALUES = 200_000
"""An image is one value; parsing a million blocks the event loop for a second."""


def media_type(request: Request) -> str:
    """Return the Content-Type without its parameters, lower case; empty where there is none.

    Raises:
        MediaTypeUnsupported: the body is compressed.
    """
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise MediaTypeUnsupported(f"Content-Encoding is {coding}; send the body uncompressed")
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Return whether a media type is JSON."""
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


async def read_json(request: Request, model: type[Model], max_values: int = _MAX_JSON_VALUES) -> Model:
    """Return the body as a validated model.

    Args:
        request: the request.
        model: what the body must be.
        max_values: maximum number of values in the body.

    Raises:
        MediaTypeUnsupported: the Content-Type is not JSON.
        JsonInvalid: the body can't be parsed.
        InvalidLimit, FilterInvalid, RequestError: the body does not fit the model.
    """
    kind = media_type(request)
    if not is_json(kind):
        raise MediaTypeUnsupported(f"Content-Type is {kind or 'missing'}; send {JSON}")
    body = await request.body()
    if sum(map(body.count, (b",", b"[", b"{"))) > max_values:
        raise RequestError(f"the body holds more than {max_values:,} JSON values; send fewer")
    try:
        return model.model_validate_json(body.removeprefix(BOM_UTF8))  # ignoring it is allowed (RFC 8259, 8.1)
    except ValidationError as error:
        raise body_error(error, model) from error


def body_error(error: ValidationError, model: type[BaseModel]) -> LookalikeError:
    """Return the error of a body that does not fit its model."""
    # A function of its own: a local name of the error, next to the body in `read_json`, would be a reference cycle that
    # keeps the body until a garbage collection.
    own = validation_error(error, model)
    if error.error_count() > MAX_FIELD_ERRORS:
        return own
    location = error.errors()[0]["loc"]
    if location[-1:] == ("limit",):
        return InvalidLimit(str(own))
    if location[:1] == ("filter",):
        return filter_error(error, skip=1)
    return own


@dataclass(frozen=True, slots=True)
class Base64Image:
    """An image as base64, or a base64 data URI."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An image's URL."""

    url: str


def decode_base64(text: str) -> bytes:
    """Decode base64 or a base64 data URI; line breaks are allowed.

    Raises:
        Base64Invalid: it is neither.
    """
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Base64Invalid("the data URI is not base64; it must begin data:image/...;base64,")
    try:  # on bytes: splitting the text would make millions of objects
        return base64.b64decode(text.encode("ascii").translate(None, b" \t\r\n\v\f"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Base64Invalid(f"the image is not valid base64: {error}") from error
