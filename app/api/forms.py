"""Multipart forms (RFC 7578), kept in memory.

The name of a part says what it is: an endpoint names its files and its text fields. So a file may have any kind of
file name, or a Content-Type alone. A text may be sent as a file, as `curl -F filter=@filter.json` does.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError

from app.errors import FormInvalid, RequestError
from lookalike.messages import quoted, unknown_name

FORM = "multipart/form-data"
_MAX_TEXT_BYTES = 64 * 1024
_CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "iso-8859-1": "latin-1",
    "windows-1252": "cp1252",
}
"""Charsets that a text may declare, and Python's codec for each."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form: the files of each name, of which most occur once, and the texts."""

    files: dict[str, list[bytes]]
    texts: dict[str, str]


async def read_form(
    request: Request, *, files: Collection[str] = (), texts: Collection[str] = (), max_files: int = 1
) -> Form:
    """Return the body as a form.

    Args:
        request: its Content-Type is `FORM`.
        files: names of the parts that are files.
        texts: names of the parts that are texts, of at most 64 KiB each.
        max_files: how often the name of a file may occur.

    Raises:
        FormInvalid: the body is not the multipart form that its header declares.
        RequestError: a name is unknown or occurs too often, a file was sent as a text, or a text can't be read.
    """
    reader = _Reader(files, texts, max_files)
    try:
        parser = MultipartParser(_boundary(request), reader.callbacks())  # type: ignore[arg-type]
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise _invalid(str(error)) from error
    if not reader.complete:
        raise _invalid("it ends before its last boundary")
    return Form(reader.files, reader.texts)


def _boundary(request: Request) -> str:
    header = Message()
    header["Content-Type"] = request.headers.get("content-type", "")
    try:
        boundary = header.get_param("boundary")
    except ValueError:  # a numbered parameter (RFC 2231) of thousands of digits
        boundary = None
    if not (boundary and isinstance(boundary, str)):
        raise _invalid("its Content-Type has no boundary")
    return boundary


def _invalid(reason: str) -> FormInvalid:
    return FormInvalid(f"the body is not a valid multipart form: {reason}")


@dataclass(slots=True)
class _Part:
    """A part while it is read."""

    headers: Message = field(default_factory=Message)
    name: str = ""
    data: bytearray = field(default_factory=bytearray)


class _Reader:
    """Collects the parts of a form from its parser's callbacks."""

    def __init__(self, files: Collection[str], texts: Collection[str], max_files: int) -> None:
        self.files: dict[str, list[bytes]] = {}
        self.texts: dict[str, str] = {}
        self.complete = False
        self._file_names, self._text_names, self._max_files = files, texts, max_files
        self._part = _Part()
        self._header, self._value = bytearray(), bytearray()

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        """Return the callbacks for `MultipartParser`."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._part = _Part()

    def _begin_header(self) -> None:
        self._header, self._value = bytearray(), bytearray()

    def _end_header(self) -> None:
        self._part.headers[self._header.decode("latin-1")] = self._value.decode("utf-8", "replace")

    def _end_headers(self) -> None:
        parameters = _disposition(self._part.headers)
        name = parameters.get("name")
        if not (name and isinstance(name, str)):
            raise _invalid("a part has no name")
        self._part.name = name
        if name in self.texts or len(self.files.get(name, ())) >= self._max_files:
            raise self._repeated(name)
        if name in self._file_names:
            if "filename" not in parameters and self._part.headers.get_content_maintype() == "text":
                raise RequestError(f"the field {name!r} is text; {self._instead(name)}")
        elif name not in self._text_names:
            message = unknown_name("form field", name, [*self._file_names, *self._text_names])
            raise RequestError(message, [{"field": name, "message": "unknown field"}])

    def _repeated(self, name: str) -> RequestError:
        if name in self._file_names and self._max_files > 1:
            return RequestError(f"the form has more than {self._max_files} files {name!r}; send fewer")
        return RequestError(f"the field {name!r} is given twice; give it once")

    def _instead(self, file_name: str) -> str:
        """Return what to send in place of a text that has the name of a file."""
        others = [name for name in self._text_names if name.startswith(f"{file_name}_")]
        return f"use {' or '.join(others)}, or send a file" if others else "send the image as a file, with a filename"

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.name in self._text_names and len(part.data) + end - start > _MAX_TEXT_BYTES:
            raise RequestError(f"the field {part.name!r} has more than {_MAX_TEXT_BYTES // 1024} KiB; send less")
        part.data += data[start:end]

    def _end_part(self) -> None:
        part = self._part
        if part.name in self._file_names:
            self.files.setdefault(part.name, []).append(bytes(part.data))
        else:
            self.texts[part.name] = _text(part)
        self._part = _Part()  # the bytes of an image are held once

    def _end(self) -> None:
        self.complete = True


def _disposition(headers: Message) -> dict[str, Any]:
    """Return the parameters of Content-Disposition; `filename*` (RFC 5987) counts as `filename`."""
    return {name.lower(): value for name, value in headers.get_params([], header="content-disposition")}


def _text(part: _Part) -> str:
    charset = str(part.headers.get_param("charset", "utf-8")).lower()
    if charset not in _CHARSETS:
        raise RequestError(f"the field {part.name!r} has the charset {quoted(charset)}; send UTF-8")
    try:
        return part.data.removeprefix(BOM_UTF8).decode(_CHARSETS[charset])
    except UnicodeDecodeError as error:
        raise RequestError(f"the field {part.name!r} is no valid {charset}: {error.reason}; send UTF-8") from error
