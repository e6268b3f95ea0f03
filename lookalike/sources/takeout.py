"""Google Takeout: which JSON file describes which photograph, and the columns of its contents.

IMG_1.jpg      IMG_1.jpg.supplemental-metadata.json, cut to 51 characters; in older exports IMG_1.jpg.json
IMG_1(2).jpg   IMG_1.jpg.supplemental-metadata(2).json
IMG_1-edited.jpg, of which Takeout writes no JSON, has that of IMG_1.jpg
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from lookalike.sources.item import composed

_SUFFIX = ".supplemental-metadata"
_MAX_STEM = 46
"""Characters of a JSON file's name before `.json`."""
_JSON = re.compile(r"(?P<image>.+?)(?P<suffix>\.s[a-z-]*)?(?P<copy>\(\d+\))?\.json", re.IGNORECASE | re.DOTALL)
_COPY = re.compile(r"(?P<stem>.+)(?P<copy>\(\d+\))(?P<extension>\.[^.]+)", re.DOTALL)
_EDITED_WORDS = (
    "edited bearbeitet modifié editado editada modificato bewerkt redigeret redigerad redigert edytowane upraveno"
    " muokattu düzenlendi 編集済み 수정됨"
)
_EDITED = re.compile(rf"-({'|'.join(_EDITED_WORDS.split())})(?=(\(\d+\))?$)")
"""The end of an edited photograph's name, in the language of the account."""


def described_images(names: Iterable[str]) -> dict[str, str]:
    """Return image name -> name of the JSON file that describes it, for the JSON files among the names.

    >>> described_images(["IMG_1.jpg.supplemental-meta(2).json", "notes.txt"])
    {'IMG_1(2).jpg': 'IMG_1.jpg.supplemental-meta(2).json'}
    """
    images: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (-len(name), name)):  # of several forms, the longest
        match = _JSON.fullmatch(name)
        if match and _SUFFIX.startswith((match["suffix"] or "").lower()):
            stem, extension = os.path.splitext(match["image"])
            images.setdefault(f"{stem}{match['copy'] or ''}{extension}", name)
    return images


def json_names(image: str, described: Mapping[str, str]) -> Iterator[str]:
    """Yield the names that the JSON file of an image may have; `described` is that of its folder."""
    stem, extension = os.path.splitext(image)
    original = _EDITED.sub("", composed(stem)) + extension
    for name in dict.fromkeys((image, original)):
        if name in described:
            yield described[name]
        yield (name + _SUFFIX)[:_MAX_STEM] + ".json"
        if match := _COPY.fullmatch(name):
            yield (match["stem"] + match["extension"] + _SUFFIX)[:_MAX_STEM] + match["copy"] + ".json"


def is_takeout(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a JSON file is Takeout's."""
    return isinstance(content.get("photoTakenTime"), dict)


def takeout_columns(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `taken`, a UTC time stamp, and `latitude` and `longitude` in degrees, as far as they are known.

    >>> takeout_columns({"photoTakenTime": {"timestamp": "0"}, "geoData": {"latitude": 1.5, "longitude": 2}})
    {'taken': datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc), 'latitude': 1.5, 'longitude': 2.0}
    """
    columns: dict[str, Any] = {}
    try:
        seconds = int(content["photoTakenTime"]["timestamp"])
        columns["taken"] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)  # before 1970 as well
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    place = content.get("geoData")
    if isinstance(place, dict):
        match place.get("latitude"), place.get("longitude"):
            case (int() | float() as latitude, int() | float() as longitude) if latitude or longitude:  # 0, 0: unknown
                columns |= {"latitude": float(latitude), "longitude": float(longitude)}
    return columns
