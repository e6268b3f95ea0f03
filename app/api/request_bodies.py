"""Request bodies: JSON, multipart forms and raw images -> what a query starts from.

Nothing of an image touches the disk: the body limit bounds what is held in memory. What HTTP, JSON or base64 rule out
ends here; whether the bytes are an image, the decoder says.
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

from app.errors import Base64Invalid, FormInvalid, MediaTypeUnsupported, RequestError
from app.validation import MAX_FIELD_ERRORS, validation_error
from lookalike.errors import InvalidLimit, LookalikeError
from lookalike.filters import filter_error

Model = TypeVar("Model", bound=BaseModel)

JSON, FORM = "application/json", "multipart/form-data"
_MAX_FORM_FIELDS = 8
_MAX_FIELD_BYTES = 64 * 1024
_MOST_JSON_VALUES = 200_000
"""Of a body: an image is one, and parsing a million takes a second in which nobody is answered."""


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, lower case; empty where there is none.

    Raises:
        MediaTypeUnsupported: the body is compressed.
    """
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise MediaTypeUnsupported(f"Content-Encoding is {coding}; send the body uncompressed")
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether a media type is JSON."""
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body as a validated model.

    Raises:
        MediaTypeUnsupported, JsonInvalid, RequestError, InvalidLimit: as their names say.
    """
    kind = media_type(request)
    if not is_json(kind):
        raise MediaTypeUnsupported(f"Content-Type is {kind or 'missing'}; send {JSON}")
    body = await request.body()
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_JSON_VALUES:
        raise RequestError(f"the body holds more than {_MOST_JSON_VALUES:,} JSON values; send fewer")
    try:
        return model.model_validate_json(body.removeprefix(BOM_UTF8))  # which RFC 8259, 8.1 lets a reader ignore
    except ValidationError as error:
        raise _json_error(error) from error


def _json_error(error: ValidationError) -> LookalikeError:
    """What the client is told.

    Raised without a name where the body is: its traceback would hold the frame that holds it, and the frame the body,
    until the garbage collector came by.
    """
    mapped = validation_error(error)
    if error.error_count() > MAX_FIELD_ERRORS:
        return mapped
    where = error.errors()[0]["loc"]
    if where[-1:] == ("limit",):
        return InvalidLimit(str(mapped))
    if where[:1] == ("filter",):
        return filter_error(error, skip=1)
    return mapped


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form, read to its end."""

    files: dict[str, bytes]
    fields: dict[str, str]

    def file(self, name: str) -> bytes | None:
        """A file's bytes, None where there is none. Raises RequestError: it came as a text field."""
        if name in self.fields:
            raise RequestError(f"the field {name!r} came as text; an image is sent as a file, with a filename")
        return self.files.get(name)

    def text(self, name: str) -> str | None:
        """A field's text, None where there is none. Raises RequestError: it came as a file."""
        if name in self.files:
            raise RequestError(f"the field {name!r} came as a file; send it as text, without a filename")
        return self.fields.get(name)


class _Parser(MultiPartParser):
    """Knows whether the form came to its end."""

    ended = False

    def on_end(self) -> None:
        """As its base has it."""
        self.ended = True
        super().on_end()


async def read_form(request: Request, files: int) -> Form:
    """The body as a form with at most `files` files, held in memory; of fields with the same name the last one counts.

    Raises:
        FormInvalid: not the multipart form that the header promises, or too many parts.
    """
    try:
        async with aclosing(request.stream()) as stream:

            async def whole() -> AsyncGenerator[bytes, None]:
                async for chunk in stream:
                    yield chunk
                if not parser.ended:
                    raise MultiPartException("it ends before its last boundary")

            parser = _Parser(
                request.headers, whole(), max_files=files, max_fields=_MAX_FORM_FIELDS, max_part_size=_MAX_FIELD_BYTES
            )
            parser.spool_max_size = 0  # SpooledTemporaryFile's word for: never roll over to the disk
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
    """The field `name` of a form or of the query string; `default` where it is absent or empty.

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
    """A threshold from a form field. Raises RequestError: not a number in [0, 2]."""
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
    """Base64, or a base64 data URI, line breaks allowed -> bytes.

    Raises:
        Base64Invalid: neither.
    """
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Base64Invalid("the data URI is not base64; it must begin data:image/...;base64,")
    try:  # bytes lose their white space in one go; pieces of a text would be millions of objects
        return base64.b64decode(text.encode("ascii").translate(None, b" \t\r\n\v\f"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Base64Invalid(f"the image is not valid base64: {error}") from error
