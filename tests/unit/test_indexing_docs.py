"""`docs/indexing.md` names every option of the command and every file of a version."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from cli.index import index
from lookalike.metadata import METADATA_FILES
from lookalike.sources import parquet, tar
from lookalike.thumbnails import THUMBNAILS_FILE

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "indexing.md").read_text(encoding="utf-8")


def test_every_option_is_documented_and_no_other() -> None:
    names = {name.removeprefix("as_").replace("_", "-") for name in inspect.signature(index).parameters}
    assert set(re.findall(r"`--([a-z-]+)`", PAGE)) == names - {"sources"}


def test_every_file_and_kind_of_source_is_documented() -> None:
    for name in (
        *METADATA_FILES,
        THUMBNAILS_FILE,
        "fingerprints.npy",
        "rejected.parquet",
        *parquet.SUFFIXES[:1],
        tar.SUFFIXES[0],
    ):
        assert name in PAGE
