"""The lock on a collection's folder, and errors of a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexing.work_folder import exclusive
from lookalike.collection import staging_folder
from lookalike.disk_errors import translated_disk_errors
from lookalike.errors import CollectionBusy, CollectionUnwritable, DiskFull


def test_second_job_on_same_collection_is_rejected(tmp_path: Path) -> None:
    root = tmp_path / "collection"
    with exclusive(root):
        script = f"import pathlib, indexing.work_folder as d\nwith d.exclusive(pathlib.Path({str(root)!r})): pass"
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert f"CollectionBusy: process {os.getpid()} is writing" in other.stderr
        with pytest.raises(CollectionBusy), exclusive(root):
            pass
    with exclusive(root):
        pass


def test_folder_of_other_files_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(CollectionUnwritable, match=r"thesis\.tex"), exclusive(tmp_path):
        pass
    with pytest.raises(CollectionUnwritable, match="is a file"), exclusive(tmp_path / "thesis.tex"):
        pass
    with (
        pytest.raises(CollectionUnwritable, match="can't be written to"),
        exclusive(tmp_path / "thesis.tex" / "collection"),
    ):
        pass


def test_unfinished_current_file_is_accepted(tmp_path: Path) -> None:
    (tmp_path / ".CURRENT.1b87b56d").write_text("2024")
    with exclusive(tmp_path):
        staging_folder(tmp_path, "1")
    assert not list(tmp_path.glob(".CURRENT.*"))


def test_what_a_job_left_before_its_first_version_is_accepted(tmp_path: Path) -> None:
    (tmp_path / ".sources.json.1b87b56d").write_text("{")
    (tmp_path / "sources.json").write_text("{}")
    with exclusive(tmp_path):
        pass


def test_file_size_limit_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFull, match=r"may not grow.*ulimit -f.*: it is lost"),
        translated_disk_errors(tmp_path, "it is lost"),
    ):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_has_its_own_error(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFull, match="same command again"), translated_disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_other_runtime_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no"), translated_disk_errors(tmp_path):
        raise RuntimeError("no")
