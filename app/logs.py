"""Logging to stderr: lines of text, or JSON with the request's id.

No key, image, text or query string is logged.
"""

from __future__ import annotations

import logging
import re
import sys
from contextvars import ContextVar
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the current request."""
trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""The current request's trace (W3C trace context): 32 hexadecimal digits, empty for none."""

_VERBOSE = ("PIL", "httpcore", "httpx", "multipart", "python_multipart")
"""Libraries that log an image's metadata, a form or a URL below the level WARNING."""
_SILENT = ("opentelemetry.baggage", "opentelemetry.trace")
"""Libraries that log a client's header whenever it is invalid."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?")


def configure(level: str, form: LogFormat) -> None:
    """Log everything to stderr in one format.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `json` for one object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_ids)
    if form == "json":
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}{request_id}{trace_id}",
                style="{",
                timestamp="time",
                rename_fields={"levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def parse_trace_id(traceparent: str) -> str:
    """Return the trace id in a `traceparent` header; empty where the header is invalid."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if not match or match["trace"] == "0" * 32 or traceparent.startswith("ff"):
        return ""
    return "" if match["more"] and traceparent.startswith("00") else match["trace"]  # later versions may append fields


def _add_ids(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    record.trace_id = trace_id.get()
    vars(record).pop("color_message", None)  # uvicorn's, for terminals
    return True
