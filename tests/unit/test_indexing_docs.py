"""`docs/guides/index-images.md` names every option of the command and every file of a version."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from cli.index import index
from lookalike.metadata import METADATA_FILES
from lookalike.sources import parquet, tar
from lookalike.thumbnails import THUMBNAILS_FILE

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "guides" / "index-images.md").read_text(
    encoding="utf-8"
)


def test_docs_list_exactly_the_options() -> None:
    names = {name.removeprefix("as_").replace("_", "-") for name in inspect.signature(index).parameters}
    assert set(re.findall(r"`--([a-z-]+)`", PAGE)) == names - {"sources"}


def test_docs_name_every_file_and_source_kind() -> None:
    for name in (
        *METADATA_FILES,
        THUMBNAILS_FILE,
        "fingerprints.npy",
        "rejected.parquet",
        *parquet.SUFFIXES[:1],
        tar.SUFFIXES[0],
    ):
        assert name in PAGE
