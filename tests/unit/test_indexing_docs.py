"""The job's guide names its options and sources; the collection format names every file and key of a version."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from cli.index import index
from indexing.row_stream import CONTENT_HASHES, FINGERPRINTS, REJECTED_SCHEMA
from lookalike.collection import CURRENT, REJECTED, VECTORS, VERSIONS
from lookalike.manifest import MANIFEST_FILE, Counts, EncoderEntry, FileEntry, Manifest, StoreEntry
from lookalike.metadata import METADATA_FILES
from lookalike.sources import parquet, tar
from lookalike.sources.columns import RESERVED_COLUMNS
from lookalike.thumbnails import THUMBNAILS_FILE

_DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
GUIDE = (_DOCS / "guides" / "index-images.md").read_text(encoding="utf-8")
FORMAT = (_DOCS / "reference" / "collection-format.md").read_text(encoding="utf-8")


def test_guide_lists_exactly_the_options() -> None:
    names = {name.removeprefix("as_").replace("_", "-") for name in inspect.signature(index).parameters}
    assert set(re.findall(r"`--([a-z-]+)`", GUIDE)) == names - {"sources"}


@pytest.mark.parametrize("suffix", [*parquet.SUFFIXES, *tar.SUFFIXES])
def test_guide_names_every_kind_of_source(suffix: str) -> None:
    assert f"`{suffix}`" in GUIDE


@pytest.mark.parametrize(
    "name",
    [
        CURRENT,
        VERSIONS,
        MANIFEST_FILE,
        VECTORS,
        *METADATA_FILES,
        THUMBNAILS_FILE,
        REJECTED,
        FINGERPRINTS,
        CONTENT_HASHES,
    ],
)
def test_format_names_every_file(name: str) -> None:
    assert re.search(rf"^ *{re.escape(name)}(/| |$)", FORMAT, re.MULTILINE)


@pytest.mark.parametrize("entry", [Manifest, EncoderEntry, StoreEntry, Counts, FileEntry])
def test_format_names_every_manifest_key(entry: type[Manifest]) -> None:
    missing = [key for key in entry.model_fields if not re.search(rf"`{key}[`.]", FORMAT)]
    assert missing == []


@pytest.mark.parametrize("column", [*RESERVED_COLUMNS, *REJECTED_SCHEMA.names])
def test_format_names_every_column(column: str) -> None:
    assert f"`{column}`" in FORMAT
