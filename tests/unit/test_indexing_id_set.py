"""The set of id hashes."""

from __future__ import annotations

import random

from indexing.id_set import _MAX_RECENT, IdSet


def test_id_set_equals_python_set() -> None:
    rng = random.Random(0)
    values = [rng.randrange(200_000) * 0x9E3779B97F4A7C15 % 2**64 for _ in range(3 * _MAX_RECENT)]
    ours, truth = IdSet(), set()
    for value in values:
        assert ours.add(value) == (value not in truth)
        truth.add(value)


def test_largest_hash_fits() -> None:
    ours = IdSet()
    assert ours.add(2**64 - 1)
    assert not ours.add(2**64 - 1)
