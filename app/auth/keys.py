"""API keys and their roles.

A key is 32 random bytes, so one round of SHA-256 protects it as well as a slow hash would. Only digests are kept; a
presented key is compared with all of them in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.settings import split_list
from lookalike.errors import ConfigInvalid

Role = Literal["read", "write", "admin"]
"""From the least to the most: each includes those before it."""

_ROLES: tuple[Role, ...] = get_args(Role)
_PREFIX = "lk_"
"""The prefix of new keys, by which scanners for leaked secrets can find them."""
_MIN_KEY_CHARS = 16


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller of the service.

    Attributes:
        name: the name of its key; empty where the service requires none.
        role: the role of its key.
    """

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Return whether the caller has a role, or one that includes it."""
        return _ROLES.index(self.role) >= _ROLES.index(role)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    role: Role
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Keyring:
    """The digests of a service's keys."""

    def __init__(self, entries: dict[str, tuple[Role, str]]) -> None:
        """`entries` are key names -> role and SHA-256, 64 hexadecimal digits."""
        self._entries = [(bytes.fromhex(digest), Caller(name, role)) for name, (role, digest) in entries.items()]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> set[str]:
        """The names of the keys."""
        return {caller.name for _, caller in self._entries}

    def caller(self, presented: str) -> Caller | None:
        """Return the caller of a key, None for an unknown one. Takes constant time: all digests are compared."""
        digest = _digest(presented)
        match = None
        for known, caller in self._entries:
            if hmac.compare_digest(known, digest):
                match = caller
        return match


def load_keyring(listed: str, path: Path | None) -> Keyring:
    """Return the keys of the environment and of a file.

    Args:
        listed: `role:key` pairs between blanks or commas, from `LOOKALIKE_KEYS`; their names are `environment-1`, ...
        path: a TOML file of tables `[NAME]` with `role` and `sha256`, as `lookalike key` writes them; None for no file.

    Raises:
        ConfigInvalid: names what is invalid and the fix; never a key.
    """
    entries = _from_file(path) if path else {}
    for number, pair in enumerate(split_list(listed), start=1):
        role, colon, key = pair.partition(":")
        if not colon or role not in _ROLES or len(key) < _MIN_KEY_CHARS or not key.isascii():
            raise ConfigInvalid(
                f"LOOKALIKE_KEYS: entry {number} is not read:KEY, write:KEY or admin:KEY with a key of "
                f"{_MIN_KEY_CHARS} ASCII characters or more; `lookalike key NAME` makes one"
            )
        entries[f"environment-{number}"] = (_ROLES[_ROLES.index(role)], _digest(key).hex())
    digests = [digest for _, digest in entries.values()]
    for name, (_, digest) in entries.items():
        if digests.count(digest) > 1:
            raise ConfigInvalid(f"the key {name!r} is listed twice, perhaps in two roles; remove one")
    return Keyring(entries)


def new_key() -> tuple[str, str]:
    """Return a new key and its SHA-256 (hexadecimal)."""
    key = _PREFIX + secrets.token_urlsafe(32)
    return key, _digest(key).hex()


def _from_file(path: Path) -> dict[str, tuple[Role, str]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"the key file {path} can't be read: {error.strerror}; see LOOKALIKE_KEYS_FILE") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and deep nesting
        raise ConfigInvalid(f"the key file {path} is not TOML: {error}") from error
    entries: dict[str, tuple[Role, str]] = {}
    for name, table in document.items():
        try:
            entry = _Entry.model_validate(table)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join([name, *map(str, first["loc"])])
            raise ConfigInvalid(f"the key file {path}: {where}: {first['msg']}; `lookalike key` writes it") from error
        entries[name] = (entry.role, entry.sha256)
    return entries


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
