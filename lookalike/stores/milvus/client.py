"""The single import of pymilvus: connections, their settings, and translation of its exceptions."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from lookalike.errors import ExtraMissing, StoreUnavailable, StoreUnreachable

_log = logging.getLogger(__name__)
_VERBOSE_LOGGERS = ("pymilvus", "milvus_lite", "grpc")
"""Loggers of errors, with stack traces, that are raised, too, or that pymilvus expects of Milvus Lite."""
_SUFFIX = re.compile(r"_\d{8}T\d{6}_[0-9a-f]{8}")
_UNREACHABLE = ("fail connecting", "illegal connection", "unavailable", "deadline exceeded", "timeout", "not connected")


class MilvusSettings(BaseSettings):
    """How to connect to Milvus, from the environment. None of it enters a manifest."""

    model_config = SettingsConfigDict(env_prefix="LOOKALIKE_MILVUS_", frozen=True, env_ignore_empty=True)

    token: SecretStr = Field(default=SecretStr(""), description="`user:password`, or an API key.")
    ca: Path | None = Field(default=None, description="Certificate authority of an https address, a PEM file.")
    timeout: float = Field(default=5.0, gt=0, description="Seconds that a call may take; loading an index has longer.")


LOAD_TIMEOUT = 3_600.0
"""Seconds that building or loading an index may take."""


@lru_cache(maxsize=16)
def connect(uri: str) -> Any:
    """Return the client of a server or file; the calls of all threads share it, and it reconnects by itself.

    Raises:
        ExtraMissing: pymilvus is not installed.
        StoreUnreachable: nothing answers.
        StoreUnavailable: the file is not one of Milvus Lite, or another process has opened it.
    """
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ExtraMissing("pymilvus is not installed: pip install 'lookalike[milvus]'") from error
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = MilvusSettings()
    options: dict[str, Any] = {"token": settings.token.get_secret_value()}
    if settings.ca is not None:
        options["server_pem_path"] = str(settings.ca)
    with translated_errors(uri, "the connection failed"):
        return MilvusClient(uri, timeout=settings.timeout, **options)


@lru_cache(maxsize=16)
def file_lock(uri: str) -> threading.Lock:
    """Return the lock of a file's searches: Milvus Lite 3.2 mixes up the parameters of concurrent ones."""
    return threading.Lock()


@contextmanager
def translated_errors(uri: str, failure: str) -> Iterator[None]:
    """Raise the exceptions of pymilvus, and of the gRPC below it, as errors of the store."""
    import grpc
    from pymilvus import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError, ConnectionError, ValueError) as error:
        reason = " ".join(str(getattr(error, "message", "") or error).split())[:200]
        if "Open local milvus failed" in reason:
            raise StoreUnavailable(
                f"the file {uri} can't be opened: another process has opened it, or it is none of Milvus Lite"
            ) from error
        if isinstance(error, ConnectionError | grpc.RpcError) or any(part in reason.lower() for part in _UNREACHABLE):
            raise StoreUnreachable(f"Milvus at {uri} can't be reached: {reason}") from error
        raise StoreUnavailable(f"Milvus at {uri}: {failure}: {reason}") from error


def alias_target(client: Any, alias: str) -> str | None:
    """Return the collection that an alias names, None if there is no such alias."""
    for name in client.list_collections():
        found = client.list_aliases(name)
        if alias in (found.get("aliases", []) if isinstance(found, dict) else found):
            return str(name)
    return None


def is_own(name: str, alias: str) -> bool:
    """Return whether a collection has the name of one that Lookalike made under an alias."""
    return name.startswith(alias) and _SUFFIX.fullmatch(name[len(alias) :]) is not None
