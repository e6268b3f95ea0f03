"""`sources.json`: where the sources of a collection lie on this machine, by the value of the column `source`.

It lies in the collection's root and every indexing job writes it anew, even one that finds nothing to index: a folder
that moved is recorded without another version. Versions do not name it, and `lookalike push` leaves it out.

    {"sources": [{"kind": "folder", "folder": "/data/photos", "labels": ["photos"]}, {"kind": "tar", "labels": [...]}]}
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, Field

from lookalike.paths import exists
from lookalike.sources.item import Source
from lookalike.sources.place import SourcePlace

SOURCES_FILE = "sources.json"
_logger = logging.getLogger(__name__)


class _Entry(BaseModel):
    kind: str
    folder: str | None = None
    labels: list[str]


class _File(BaseModel):
    sources: list[_Entry] = Field(default_factory=list)


def source_places_text(sources: Iterable[Source]) -> str:
    """Return the file's text; folders are made absolute, since a service may run in another folder than the job."""
    labels: dict[tuple[str, str | None], dict[str, None]] = defaultdict(dict)
    for source in sources:
        place = source.place
        folder = None if place.folder is None else os.path.abspath(place.folder)
        labels[place.kind, folder][source.label] = None
    entries = [_Entry(kind=kind, folder=folder, labels=list(names)) for (kind, folder), names in labels.items()]
    return _File(sources=entries).model_dump_json(indent=2, exclude_none=True) + "\n"


def read_source_places(root: Path) -> dict[str, list[SourcePlace]]:
    """Read the places of the collection at `root` by label; sources of one name may have several.

    Returns:
        Nothing where there is no file. A damaged one is logged and not used.
    """
    path = root / SOURCES_FILE
    places: dict[str, list[SourcePlace]] = defaultdict(list)
    try:
        if not exists(path):
            return {}
        entries = _File.model_validate_json(path.read_bytes()).sources
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        _logger.warning("sources_ignored path=%s: %.300s; run `lookalike index` again, which writes it", path, reason)
        return {}
    for entry in entries:
        for label in entry.labels:
            places[label].append(SourcePlace(entry.kind, None if entry.folder is None else Path(entry.folder)))
    return dict(places)
