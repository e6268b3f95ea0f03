"""Request bodies: JSON, multipart forms and base64.

Bodies are kept in memory, bounded by the body limit; no image is written to disk. The decoder checks whether bytes are
an image.
"""

from __future__ import annotations

import base64
import binascii
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from typing_extensions import override

from app.errors import Base64Invalid, FormInvalid, MediaTypeUnsupported, RequestError
from app.validation import MAX_FIELD_ERRORS, validation_error
from lookalike.errors import InvalidLimit, LookalikeError
from lookalike.filters import filter_error

Model = TypeVar("Model", bound=BaseModel)

JSON, FORM = "application/json", "multipart/form-data"
_MAX_FORM_FIELDS = 8
_MAX_FIELD_BYTES = 64 * 1024
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


async def read_json(request: Request, model: type[Model]) -> Model:
    """Return the body as a validated model.

    Raises:
        MediaTypeUnsupported: the Content-Type is not JSON.
        JsonInvalid: the body can't be parsed.
        InvalidLimit, FilterInvalid, RequestError: the body does not fit the model.
    """
    kind = media_type(request)
    if not is_json(kind):
        raise MediaTypeUnsupported(f"Content-Type is {kind or 'missing'}; send {JSON}")
    body = await request.body()
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_JSON_VALUES:
        raise RequestError(f"the body holds more than {_MAX_JSON_VALUES:,} JSON values; send fewer")
    try:
        return model.model_validate_json(body.removeprefix(BOM_UTF8))  # ignoring it is allowed (RFC 8259, 8.1)
    except ValidationError as error:
        raise _json_error(error) from error


def _json_error(error: ValidationError) -> LookalikeError:
    # A function of its own: a local name of the error, next to the body in `read_json`, would be a reference cycle that
    # keeps the body until a garbage collection.
    own = validation_error(error)
    if error.error_count() > MAX_FIELD_ERRORS:
        return own
    location = error.errors()[0]["loc"]
    if location[-1:] == ("limit",):
        return InvalidLimit(str(own))
    if location[:1] == ("filter",):
        return filter_error(error, skip=1)
    return own


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form."""

    files: dict[str, bytes]
    fields: dict[str, str]

    def file(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none. Raises RequestError: it was sent as text."""
        if name in self.fields:
            raise RequestError(f"the field {name!r} is text; send the image as a file, with a filename")
        return self.files.get(name)

    def text(self, name: str) -> str | None:
        """Return a field's text, None where there is none. Raises RequestError: it was sent as a file."""
        if name in self.files:
            raise RequestError(f"the field {name!r} is a file; send it as text, without a filename")
        return self.fields.get(name)


class _Parser(MultiPartParser):
    """A parser that records whether the form was complete."""

    complete = False

    @override
    def on_end(self) -> None:
        self.complete = True
        super().on_end()


async def read_form(request: Request, files: int) -> Form:
    """Return the body as a form with at most `files` files; of fields with the same name the last one counts.

    Raises:
        FormInvalid: the body is not the multipart form that its header declares, or has too many parts.
    """
    try:
        async with aclosing(request.stream()) as stream:

            async def whole() -> AsyncGenerator[bytes, None]:
                async for chunk in stream:
                    yield chunk
                if not parser.complete:
                    raise MultiPartException("it ends before its last boundary")

            parser = _Parser(
                request.headers, whole(), max_files=files, max_fields=_MAX_FORM_FIELDS, max_part_size=_MAX_FIELD_BYTES
            )
            parser.spool_max_size = 0  # SpooledTemporaryFile then never writes to disk
            data = await parser.parse()
    except MultiPartException as error:
        raise FormInvalid(f"the body is not a valid multipart form: {error.message}") from error
    try:
        parts = data.multi_items()
        read = {name: await part.read() for name, part in parts if isinstance(part, UploadFile)}
        return Form(read, {name: part for name, part in parts if isinstance(part, str)})
    finally:
        await data.close()


@dataclass(frozen=True, slots=True)
class Base64Image:
    """An image as base64, or a base64 data URI."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An image's URL."""

    url: str


def parse_whole(name: str, text: str | None, default: int) -> int:
    """Parse a whole number from a form or a query string.

    Args:
        name: the field, for the error; `limit` has one of its own.
        text: None or empty where the field is absent.
        default: the number then.

    Raises:
        InvalidLimit, RequestError: not a whole number of at most ten characters.
    """
    if not text:
        return default
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 10):
        kind = InvalidLimit if name == "limit" else RequestError
        raise kind(f"{name} is {text[:40]!r}; it must be a whole number of at most ten digits")
    return int(text)


def parse_threshold(text: str | None) -> float | None:
    """Parse a threshold from a form field. Raises RequestError: not a number in [0, 2]."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 2.0:
        raise RequestError(f"threshold is {text[:40]!r}; it must be a cosine distance between 0 and 2")
    return value


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
