"""A few kills of a service under load, and the proof that the test finds lost writes. `make crash` has hundreds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.crasher import Crasher
from tests.crash.failure import Failure
from tests.crash.service import Launcher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds compactions in /proc, which Linux has")


@contextmanager
def _crasher(folder: Path, seed: int, *options: str, say: Callable[[str], None] = print) -> Iterator[Crasher]:
    launcher = Launcher(*options)
    try:
        yield Crasher(folder / "collection", seed, launcher, say)
    finally:
        launcher.close()


def test_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    with _crasher(tmp_path, seed=7) as crasher:
        figures = crasher.run(kills=3, seconds=18)
    print(figures.table())
    assert figures.kills
    assert figures.acknowledged
    assert figures.items


def test_writes_that_are_not_committed_are_reported_as_lost(tmp_path: Path) -> None:
    with _crasher(tmp_path, 1, "--without-commit") as crasher, pytest.raises(Failure) as caught:
        crasher.run(kills=3, seconds=18)
    assert "must be" in str(caught.value)
    assert crasher.figures.kills == 1
