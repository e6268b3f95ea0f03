"""API keys and the roles that they carry: who asks, and what they may.

A key is 32 random bytes, so one round of SHA-256 hides it as well as any slow hash would; only the digest is kept, and
every presented key is compared with all of them in constant time. Without any key the service answers anyone. It knows
nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.settings import split_list
from lookalike.errors import ConfigInvalid

Role = Literal["read", "admin"]

_PREFIX = "lk_"
"""What every new key begins with, so that a scanner for leaked secrets can know it."""
_SHORTEST = 16


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the key; empty where the service needs none.
        role: what the key may do; `admin` may all that `read` may.
    """

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether the caller may do what `role` may."""
        return self.role in (role, "admin")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    role: Role
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Keyring:
    """The keys that a service knows, by their digests."""

    def __init__(self, entries: dict[str, tuple[Role, str]]) -> None:
        """From key names to role and SHA-256, 64 hexadecimal digits."""
        self._entries = [(bytes.fromhex(digest), Caller(name, role)) for name, (role, digest) in entries.items()]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> set[str]:
        """Whose keys these are."""
        return {caller.name for _, caller in self._entries}

    def caller(self, presented: str) -> Caller | None:
        """Whose key this is, None if nobody's. All keys are compared, whichever it is."""
        digest = _digest(presented)
        found = None
        for known, caller in self._entries:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def load_keyring(listed: str, path: Path | None) -> Keyring:
    """The keys of the environment and of a file together.

    Args:
        listed: `role:key` pairs between blanks or commas, as `LOOKALIKE_KEYS` holds them; they are named by their
            place: `environment-1`, ...
        path: a TOML file of tables `[NAME]` with `role` and `sha256`, as `lookalike key` writes them; None for no file.

    Raises:
        ConfigInvalid: names what can't be read and the mend; never a key.
    """
    entries = _from_file(path) if path else {}
    for number, pair in enumerate(split_list(listed), start=1):
        role, colon, key = pair.partition(":")
        if not colon or role not in ("read", "admin") or len(key) < _SHORTEST or not key.isascii():
            raise ConfigInvalid(
                f"LOOKALIKE_KEYS: entry {number} is not read:KEY or admin:KEY with a key of {_SHORTEST} ASCII "
                "characters or more; `lookalike key NAME` makes one"
            )
        entries[f"environment-{number}"] = ("admin" if role == "admin" else "read", _digest(key).hex())
    digests = [digest for _, digest in entries.values()]
    for name, (_, digest) in entries.items():
        if digests.count(digest) > 1:
            raise ConfigInvalid(f"the key {name!r} stands there twice, perhaps in two roles; take one out")
    return Keyring(entries)


def new_key() -> tuple[str, str]:
    """A new key and its SHA-256 (hexadecimal)."""
    key = _PREFIX + secrets.token_urlsafe(32)
    return key, _digest(key).hex()


def _from_file(path: Path) -> dict[str, tuple[Role, str]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"the key file {path} can't be read: {error.strerror}; see LOOKALIKE_KEYS_FILE") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, and what is nested as deeply
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
