"""The place of a Milvus store, as `--store` names it.

milvus:http://host:19530/name                    a server, and the alias of the collection there
milvus:http://host:19530/name?index=hnsw-sq8     with a preset of the index
milvus:./file.db                                 Milvus Lite, a file; the alias is `lookalike`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from lookalike.errors import UnknownStore
from lookalike.stores.presets import DEFAULT_PRESET, EXACT, PRESETS

PREFIX = "milvus:"
_LITE_ALIAS, _LITE_PRESET = "lookalike", "ivf-sq8"
_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_FORMS = "write it as milvus:http://HOST:19530/NAME or milvus:./FILE.db, with ?index=PRESET to choose the index"


@dataclass(frozen=True, slots=True)
class MilvusLocation:
    """Where the rows of a collection are in Milvus.

    Attributes:
        uri: of the server, or the absolute path of the file.
        alias: name of the collection for its clients.
        preset: name of the kind of index; None to choose by the number of rows.
    """

    uri: str
    alias: str
    preset: str | None = None

    def preset_for(self, count: int, exact_below: int) -> str:
        """Return the preset for n rows: Milvus Lite has no product codes."""
        if self.preset is not None:
            return self.preset
        return EXACT if count < exact_below else _LITE_PRESET if is_file(self.uri) else DEFAULT_PRESET


def is_file(uri: str) -> bool:
    """Return whether the rows are in a file of Milvus Lite."""
    return "://" not in uri


def is_location(name: str) -> bool:
    """Return whether the name of a store is a place in Milvus."""
    return name.startswith(PREFIX)


def parse_location(name: str) -> MilvusLocation:
    """Parse the name of a store.

    Raises:
        UnknownStore: it has another form, a password, or an unknown preset.
    """
    address, _, query = name.removeprefix(PREFIX).partition("?")
    preset = _preset(name, query)
    if "://" not in address:
        if not address.endswith(".db"):
            raise UnknownStore(f"{name!r} names no place in Milvus: {_FORMS}")
        return MilvusLocation(str(Path(address).expanduser().resolve()), _LITE_ALIAS, preset)
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise UnknownStore(
            f"the address of Milvus at {parts.hostname} holds a password, which the manifest would show; leave it out, "
            "and set LOOKALIKE_MILVUS_TOKEN=user:password"
        )
    alias = parts.path.strip("/")
    if parts.scheme not in ("http", "https") or not parts.hostname or not _ALIAS.fullmatch(alias):
        raise UnknownStore(f"{name!r} names no place in Milvus: {_FORMS}; NAME has letters, digits and underscores")
    return MilvusLocation(f"{parts.scheme}://{parts.netloc}", alias, preset)


def _preset(name: str, query: str) -> str | None:
    options = dict(parse_qsl(query, keep_blank_values=True))
    preset = options.pop("index", None)
    if options or (preset is not None and preset not in PRESETS):
        raise UnknownStore(f"{name!r} asks for an unknown index; ?index= is one of {', '.join(PRESETS)}")
    return preset
