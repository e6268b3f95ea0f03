from __future__ import annotations

import pytest

from lookalike.stopwatch import Stopwatch


def test_a_stage_entered_twice_is_summed() -> None:
    watch = Stopwatch()
    with watch.stage("encode"):
        pass
    first = watch.took_ms["encode"]
    with watch.stage("encode"):
        pass
    assert watch.took_ms["encode"] >= first >= 0.0
    assert set(watch.took_ms) == {"encode"}


def test_a_stage_that_raises_is_counted_too() -> None:
    watch = Stopwatch()
    with pytest.raises(ValueError, match="no"), watch.stage("decode"):
        raise ValueError("no")
    assert "decode" in watch.took_ms
