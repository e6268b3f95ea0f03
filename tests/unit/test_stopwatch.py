from __future__ import annotations

import pytest

from lookalike.stopwatch import Stopwatch


def test_a_stage_entered_twice_is_summed() -> None:
    stopwatch = Stopwatch()
    with stopwatch.stage("encode"):
        pass
    first = stopwatch.took_ms["encode"]
    with stopwatch.stage("encode"):
        pass
    assert stopwatch.took_ms["encode"] >= first >= 0.0
    assert set(stopwatch.took_ms) == {"encode"}


def test_a_stage_that_raises_is_counted_too() -> None:
    stopwatch = Stopwatch()
    with pytest.raises(ValueError, match="no"), stopwatch.stage("decode"):
        raise ValueError("no")
    assert "decode" in stopwatch.took_ms
