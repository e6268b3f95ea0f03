"""Authentication: the caller of a request, from its API key. The key file is read again when it changes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from app.auth.keys import Caller, load_keyring
from app.errors import KeyInvalid, KeyMissing
from app.settings import Settings
from lookalike.errors import ConfigInvalid

logger = logging.getLogger(__name__)


class Authenticator:
    """The API keys of a service.

    Attributes:
        requires_key: whether a request must carry a key. It is decided at the start: a key file that loses all its
            keys rejects every request.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the keys.

        Raises:
            ConfigInvalid: the keys can't be read.
        """
        self._listed, self._file = settings.keys.get_secret_value(), settings.keys_file
        self._read = self._seen = _stamp(self._file)  # before the file is read: a write in between is a change
        self._keyring = load_keyring(self._listed, self._file)
        self.requires_key = len(self._keyring) > 0 or self._file is not None
        self._anonymous = Caller("", "read" if settings.anonymous else "admin")

    def authenticate(self, key: str | None) -> Caller:
        """Return the caller to whom a key belongs.

        Raises:
            KeyMissing: the service requires a key.
            KeyInvalid: the service does not have this key.
        """
        if not self.requires_key:
            return self._anonymous
        if not key:
            raise KeyMissing("an API key is required: send Authorization: Bearer KEY, or X-API-Key: KEY")
        caller = self._keyring.caller(key.strip())  # blanks around a header's value are no part of it (RFC 9110)
        if caller is None:
            raise KeyInvalid("unknown API key")
        return caller

    async def watch(self, seconds: float) -> None:
        """Reload the key file whenever it has changed; never return.

        A file that can't be read is refused: the previous keys stay valid.
        """
        while self._file is not None:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Read the key file again if it has changed, and not since the previous call.

        A file that is being written is not read: truncated, it would be valid and hold no key.
        """
        stamp, previous = _stamp(self._file), self._seen
        self._seen = stamp
        if stamp == self._read or stamp != previous:
            return
        self._read = stamp
        try:
            self._keyring = load_keyring(self._listed, self._file)
        except ConfigInvalid as error:
            logger.error("keys_refused: %s; the previous keys stay valid", error)
        else:
            logger.warning("keys_read count=%d", len(self._keyring))


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """Return values that change when a file is written; None where there is no file."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status else None
