"""Paths that the operating system refuses end in one line, in whichever command."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cli import main as main_module
from indexing.work_folder import exclusive
from lookalike.disk_errors import file_error, translated_disk_errors
from lookalike.errors import CollectionUnwritable, SourceError
from lookalike.sources.registry import open_sources


def refused(path: object) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refused("a/b.jpg"), "a/b.jpg can't be read or written: Permission denied"),
        (refused(b"a"), "a can't be read or written: Permission denied"),
        (refused(7), "an open file can't be read or written: Permission denied"),
        (OSError("Failed to open\n'x'. Detail: denied"), "Failed to open 'x'. Detail: denied"),
    ],
)
def test_message_is_one_line(error: OSError, message: str) -> None:
    assert str(file_error(error)) == message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE])
def test_job_translates_errors_of_files(tmp_path: Path, number: int) -> None:
    with pytest.raises(SourceError, match="x can't be read or written"), translated_disk_errors(tmp_path):
        raise OSError(number, os.strerror(number), "x")


def test_program_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["lookalike", "gallery", str(tmp_path / "file" / "photos")])
    with pytest.raises(SystemExit) as caught:
        main_module.main()
    assert caught.value.code == 1
    printed = capsys.readouterr().err
    assert printed == f"error: {tmp_path}/file/photos can't be read or written: Not a directory [source_invalid]\n"


def test_source_in_closed_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise refused(str(path))

    monkeypatch.setattr("lookalike.sources.registry.exists", refuse)
    with pytest.raises(SourceError, match="shut/photos can't be read: Permission denied"):
        open_sources(["shut/photos"])


def test_output_in_closed_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(path: Path) -> bool:
        raise refused(str(path))

    monkeypatch.setattr("indexing.work_folder.exists", refuse)
    with (
        pytest.raises(CollectionUnwritable, match="out can't be written to: Permission denied"),
        exclusive(tmp_path / "out"),
    ):
        pass
