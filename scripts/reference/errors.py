"""docs/reference/errors.md: a heading for each error code, with the text of its class."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from http import HTTPStatus

from app.errors import HTTP_CODES, RequestError, RetryableError, status_of
from lookalike.errors import (
    CollectionError,
    EncoderError,
    ExtraMissing,
    ImageError,
    LookalikeError,
    QueryError,
    SourceError,
    StoreError,
)
from scripts.reference.cli import EXIT_STATUSES
from scripts.reference.markdown import error_classes, paragraphs, table

_FAMILIES: dict[type[LookalikeError], str] = {
    RequestError: "Requests",
    RetryableError: "Overload and retries",
    ImageError: "Images",
    QueryError: "Queries",
    CollectionError: "Collections",
    StoreError: "Stores",
    EncoderError: "Encoders",
    SourceError: "Sources and files",
    ExtraMissing: "Installation",
}
_JOB_FAMILIES = (SourceError, ExtraMissing)
"""Errors of commands; no request meets them."""

_INTRODUCTION = """\
# Errors

Every error that Lookalike raises on purpose has a *code* that never changes. Search this page for the code that you
have. Each entry says what went wrong and what to do.

```text
error: no collection at photos: make one with `lookalike index SOURCE --out photos` [collection_not_found]
```

## Where codes appear

- **Commands** print one line that ends in the code.
- **The service** has it in `code`, and in `type` as `urn:lookalike:error:CODE`.
- **Logs and metrics** have it, such as the label `code` of `lookalike_errors_total`.
- **`rejected.parquet`** of a collection has it in the column `code`, for each image that is not indexed.
- **Python** has it as `code` of the exception, a subclass of `lookalike.errors.LookalikeError`.

## Exit statuses

{exit_statuses}

## Problem documents

Every error response is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)):

```json
{
  "type": "urn:lookalike:error:unknown_item",
  "title": "Not Found",
  "status": 404,
  "detail": "no item has the id 'dog.jpg' in this collection",
  "instance": "/v1/items/dog.jpg",
  "code": "unknown_item"
}
```

Decide by `code`, which is stable. `detail` is for people: it names what is wrong and the fix, and a long value in it is
shortened. `errors` lists the invalid fields, if there are any.

Two responses are not problem documents. Both are 400 with a line of `text/plain`:

- An invalid HTTP request: an invalid request line, headers over 64 KB, no `Host`, or two.
- A browser's preflight request from an origin that
  [`LOOKALIKE_CORS_ORIGINS`](settings.md#lookalike_cors_origins) does not list.

A reverse proxy may add its own errors: see [Limits of the proxy](../guides/secure.md#limits-of-the-proxy).

## HTTP statuses

{statuses}

## Errors before the first request

`lookalike serve` and `lookalike search` open the collection first. An error of the families Collections, Stores or
Encoders ends them with one line and status 1.

In a running service such an error is rare. Its status is then 500, or 503 for the stores. The log has the detail."""


def page() -> str:
    """Return the page."""
    statuses = table(("status", "codes"), list(_statuses()))
    introduction = _INTRODUCTION.replace("{statuses}", statuses).replace("{exit_statuses}", EXIT_STATUSES)
    sections = [_section(family, title) for family, title in _FAMILIES.items()]
    return "\n\n".join([introduction, *sections, _http_section()]) + "\n"


def _statuses() -> Iterator[tuple[str, str]]:
    """Yield each HTTP status with its codes."""
    codes: dict[HTTPStatus, list[str]] = {}
    for error in error_classes():
        if _family(error) not in _JOB_FAMILIES:
            codes.setdefault(status_of(error), []).append(error.code)
    for code, (status, _) in HTTP_CODES.items():
        codes.setdefault(status, []).append(code)
    for status in sorted(codes):
        yield f"{status} {status.phrase}", ", ".join(f"[`{code}`](#{code})" for code in codes[status])


def _family(error: type[LookalikeError]) -> type[LookalikeError]:
    return next(parent for parent in error.__mro__ if parent in _FAMILIES)


def _section(family: type[LookalikeError], title: str) -> str:
    members = [error for error in error_classes() if _family(error) is family]
    return "\n\n".join([f"## {title}", *map(_entry, members)])


def _entry(error: type[LookalikeError]) -> str:
    text = inspect.cleandoc(error.__doc__ or "").partition("\n\nAttributes:")[0]
    facts = [] if _family(error) in _JOB_FAMILIES else [_status(status_of(error))]
    if error.__module__ == "lookalike.errors":
        facts.append(f"Python: `lookalike.errors.{error.__name__}`.")
    return _heading(error.code, text, " ".join(facts))


def _http_section() -> str:
    entries = [_heading(code, text, _status(status)) for code, (status, text) in HTTP_CODES.items()]
    return "\n\n".join(["## HTTP", *entries])


def _heading(code: str, text: str, facts: str) -> str:
    return "\n\n".join([f"### {code}", paragraphs(text), facts])


def _status(status: HTTPStatus) -> str:
    return f"HTTP status: {status} {status.phrase}."
