"""Progress of a job."""

from __future__ import annotations

import doctest

import pytest

from indexing import progress as progress_module
from indexing.progress import Progress


def test_counts_and_log_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_LOG_INTERVAL_SECONDS", 0.0)
    with Progress() as shown:
        shown.begin(100)
        shown.add(encoded=4)
        shown.add(encoded=6, rejected=2, reused=3)
    assert (shown.done, shown.encoded, shown.rejected) == (15, 10, 2)
    line = capsys.readouterr().err
    assert "15 of about 100 images" in line
    assert "2 rejected" in line
    assert "left" in line


def test_unknown_total_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=True) as shown:
        shown.begin(None)
        shown.add(encoded=1)
    assert capsys.readouterr().err == ""


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(progress_module).failed == 0
