"""The single import of pymilvus: connections, their settings, and translation of its exceptions."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from lookalike.errors import ConfigInvalid, ExtraMissing, StoreUnavailable, StoreUnreachable
from lookalike.messages import quoted
from lookalike.stores.milvus.location import is_file

_log = logging.getLogger(__name__)
_VERBOSE_LOGGERS = ("pymilvus", "milvus_lite", "grpc")
"""Loggers of errors, with stack traces, that are raised, too, or that pymilvus expects of Milvus Lite."""
_SUFFIX = re.compile(r"_\d{8}T\d{6}_([0-9a-f]{8})[0-9a-f]{4}")
_RPC_DETAILS = re.compile(r'_InactiveRpcError.*?details = "([^"]*)"')
"""What happened, within the text of a failed call."""
_UNREACHABLE = (
    "fail connecting", "illegal connection", "unavailable", "deadline exceeded", "timeout", "not connected",
    "inactiverpcerror",
)  # fmt: skip


class MilvusSettings(BaseSettings):
    """How to connect to Milvus, from the environment. None of it enters a manifest."""

    model_config = SettingsConfigDict(env_prefix="LOOKALIKE_MILVUS_", frozen=True, env_ignore_empty=True)

    token: SecretStr = Field(default=SecretStr(""), description="`user:password`, or an API key.")
    ca: Path | None = Field(default=None, description="Certificate authority of an https address, a PEM file.")
    timeout: float = Field(default=5.0, gt=0, description="Seconds that a call may take; loading an index has longer.")


def settings() -> MilvusSettings:
    """Return the settings.

    Raises:
        ConfigInvalid: a value is invalid, or the file of the certificate authority does not exist.
    """
    try:
        found = MilvusSettings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"LOOKALIKE_MILVUS_{str(first['loc'][0]).upper()}"
        raise ConfigInvalid(f"{name} is {quoted(str(first['input']))}: {first['msg']}") from None
    if found.ca is not None and not found.ca.is_file():
        raise ConfigInvalid(f"LOOKALIKE_MILVUS_CA is {quoted(str(found.ca))}; there is no such file")
    return found


LOAD_TIMEOUT = 3_600.0
"""Seconds that building or loading an index may take."""


@lru_cache(maxsize=16)
def connect(uri: str) -> Any:
    """Return the client of a server or file; the calls of all threads share it, and it reconnects by itself.

    Raises:
        ExtraMissing: pymilvus is not installed.
        StoreUnreachable: nothing answers.
        StoreUnavailable: the file is not one of Milvus Lite, or another process has opened it.
        ConfigInvalid: a setting is invalid.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC writes to stderr what is raised, too
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ExtraMissing("pymilvus is not installed: pip install 'lookalike[milvus]'") from error
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if is_file(uri) and not Path(uri).parent.is_dir():
        raise StoreUnavailable(f"the file {uri} can't be made: its folder does not exist")
    chosen = settings()
    options: dict[str, Any] = {"token": chosen.token.get_secret_value()}
    if chosen.ca is not None:
        options["server_pem_path"] = str(chosen.ca)
    with translated_errors(uri, "the connection failed"):
        return MilvusClient(uri, timeout=chosen.timeout, **options)


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
        text = " ".join(str(getattr(error, "message", "") or error).split())
        details = _RPC_DETAILS.search(text)
        reason = (details[1] if details else text)[:200]
        if "Open local milvus failed" in reason:
            raise StoreUnavailable(
                f"the file {uri} can't be opened: another process has opened it, or it is none of Milvus Lite"
            ) from error
        if isinstance(error, ConnectionError | grpc.RpcError) or any(part in text.lower() for part in _UNREACHABLE):
            raise StoreUnreachable(f"Milvus at {uri} can't be reached: {reason}") from error
        raise StoreUnavailable(f"Milvus at {uri}: {failure}: {reason}") from error


def alias_target(client: Any, alias: str) -> str | None:
    """Return the collection that an alias names, None if there is no such alias."""
    for name in client.list_collections():
        found = client.list_aliases(name)
        if alias in (found.get("aliases", []) if isinstance(found, dict) else found):
            return str(name)
    return None


def owner_digits(versions: Path | None) -> str:
    """Return eight hexadecimal digits of the folder that a collection's versions are in; zeros without a folder."""
    if versions is None:
        return "0" * 8
    return hashlib.blake2b(str(versions.resolve()).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def own_name(alias: str, owner: str) -> str:
    """Return a new name of a collection: the alias, the time, the owner's digits, and four random ones."""
    return f"{alias}_{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}_{owner}{secrets.token_hex(2)}"


def is_own(name: str, alias: str, owner: str | None = None) -> bool:
    """Return whether a collection has the name of one that Lookalike made under an alias, for an owner if one is given.

    >>> is_own("photos_20261203T101500_89abcdef0123", "photos", "89abcdef")
    True
    """
    match = _SUFFIX.fullmatch(name.removeprefix(alias)) if name.startswith(alias) else None
    return match is not None and owner in (None, match[1])
