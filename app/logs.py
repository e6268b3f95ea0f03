"""What the service writes of itself, on stderr: lines for people, or JSON with the request's name for machines.

Nothing of a key, an image or a text enters a log, and of a path no query string.
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
"""Of the request that is being answered."""
trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""Of the trace that the client says the request belongs to (W3C trace context); 32 hexadecimal digits."""

_TALKATIVE = ("PIL", "httpcore", "httpx", "multipart", "python_multipart")
"""Libraries that write what an image's metadata, a form or a URL holds when they are asked for details."""
_SILENT = ("opentelemetry.baggage", "opentelemetry.trace")
"""Libraries that write down what a client's header holds whenever it is no good."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?")


def configure(level: str, form: LogFormat) -> None:
    """Sends everything that is logged to stderr, in one form.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `json` for one object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_name_request)
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
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def parse_trace_id(traceparent: str) -> str:
    """The trace's id out of a `traceparent` header; empty where that makes no sense."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if not found or found["trace"] == "0" * 32 or traceparent.startswith("ff"):
        return ""
    return "" if found["more"] and traceparent.startswith("00") else found["trace"]  # later versions may say more


def _name_request(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    record.trace_id = trace_id.get()
    vars(record).pop("color_message", None)  # uvicorn's, for terminals
    return True
