"""Progress of a job."""

from __future__ import annotations

import doctest

import pytest

from indexing import progress as progress_module
from indexing.progress import Progress


def test_counts_and_log_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_LOG_INTERVAL_SECONDS", 0.0)
    with Progress() as progress:
        progress.begin(100)
        progress.add(encoded=4)
        progress.add(encoded=6, rejected=2, reused=3)
    assert (progress.done, progress.encoded, progress.rejected) == (15, 10, 2)
    line = capsys.readouterr().err
    assert "15 of about 100 images" in line
    assert "2 rejected" in line
    assert "left" in line


def test_unknown_total_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=True) as progress:
        progress.begin(None)
        progress.add(encoded=1)
    assert capsys.readouterr().err == ""


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(progress_module).failed == 0
