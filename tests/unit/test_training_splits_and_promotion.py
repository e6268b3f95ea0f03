"""Splits by class, held-out classes, batch sizes that fit the data, and promotion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluation.classes import unseen_classes
from evaluation.datasets import Example
from training.data.batches import fit_batch_size
from training.data.splits import held_out_classes, split_by_class
from training.settings import settings_from
from training.validation.promotion import (
    SHARES,
    CandidateScore,
    interpolate,
    select_candidate,
    try_shares,
    within_chance,
)


def examples(sizes: dict[str, int]) -> list[Example]:
    return [Example(f"{name}/{i}", lambda: b"", name) for name, size in sizes.items() for i in range(size)]


def test_same_share_of_every_class_is_held_out_in_every_run() -> None:
    everything = examples({"a": 20, "b": 40, "c": 4, "d": 3})
    train, held = split_by_class(everything, 0.1, seed=0)
    assert {e.key for e in train} | {e.key for e in held} == {e.key for e in everything}
    assert not {e.key for e in train} & {e.key for e in held}
    counts = {name: sum(e.label == name for e in held) for name in "abcd"}
    assert counts == {"a": 2, "b": 4, "c": 2, "d": 0}  # of three, two held out would leave one to train on
    assert [e.key for e in split_by_class(everything, 0.1, seed=0)[1]] == [e.key for e in held]
    assert [e.key for e in split_by_class(everything, 0.1, seed=1)[1]] != [e.key for e in held]


def test_whole_classes_are_held_out() -> None:
    everything = examples({name: 5 for name in "abcdefghij"} | {"single": 1})
    assert held_out_classes(everything, 0.25) == {"i", "j", "single"}
    assert held_out_classes(everything, 0.25) == unseen_classes({*"abcdefghij", "single"}, 0.25)  # as evaluation has it
    assert held_out_classes(everything, 0.01) == set()  # of two classes only one has a pair: nothing to be mistaken for
    assert held_out_classes(examples({name: 5 for name in "abcd"}), 0.01) == {"c", "d"}
    assert held_out_classes(everything, 0.0) == set()
    assert held_out_classes(examples({"a": 5, "b": 5, "c": 5}), 0.5) == set()


@pytest.mark.parametrize(
    ("count", "classes", "size", "group", "expected"),
    [
        (1000, 20, 64, 4, (64, 4)),
        (1000, 8, 64, 4, (64, 8)),
        (40, 10, 64, 4, (40, 4)),
        (30, 3, 64, 4, (28, 10)),
        (30, None, 64, 4, (30, 4)),
    ],
)
def test_batch_shrinks_to_available_images_and_classes(
    count: int, classes: int | None, size: int, group: int, expected: tuple[int, int]
) -> None:
    labels = None if classes is None else np.arange(count, dtype=np.int64) % classes
    settings = settings_from({"optimizer": {"batch_size": size}, "sampling": {"per_class": group}}, "test")
    fitted, warning = fit_batch_size(settings, count, labels)
    made = fitted.optimizer.batch_size, fitted.sampling.per_class
    assert bool(warning) == (made != (size, group))
    if classes is not None:
        assert made[0] % made[1] == 0
        assert made[0] // made[1] <= classes
        assert made[0] <= max(size, made[1])
    assert made == expected if (count, classes) != (30, 3) else made[0] <= 30


def test_best_share_that_is_no_worse_is_selected() -> None:
    trained = {"w": torch.ones(2), "steps": torch.tensor(7)}
    start = {"w": torch.zeros(2), "steps": torch.tensor(0)}

    def measure(weights: dict[str, torch.Tensor], share: float) -> CandidateScore:
        assert float(weights["w"][0]) == pytest.approx(share)
        assert int(weights["steps"]) == 7
        return CandidateScore(0.5 + 0.4 * share, 0.6 - 0.2 * (share - 0.3) ** 2 if share > 0.3 else 0.61, share)

    chosen, tried = try_shares(trained, start, CandidateScore(0.5, 0.6), measure)
    assert [standing.share for standing in tried] == list(SHARES)
    assert chosen.share == 0.25
    assert chosen.no_worse_than(CandidateScore(0.5, 0.6))


def test_best_on_unseen_is_selected_where_all_are_worse() -> None:
    base = CandidateScore(0.8, 0.9)
    worse = select_candidate([CandidateScore(0.9, 0.5), CandidateScore(0.85, 0.7, 0.5)], base)
    assert worse.share == 0.5
    assert not worse.no_worse_than(base)


def test_seen_classes_decide_without_unseen_ones() -> None:
    assert CandidateScore(0.9).no_worse_than(CandidateScore(0.9))
    assert not CandidateScore(0.8).no_worse_than(CandidateScore(0.9))
    assert not CandidateScore(math.nan).no_worse_than(CandidateScore(0.9))


def test_interpolation_by_1_returns_trained_weights() -> None:
    trained = {"w": torch.ones(2)}
    assert interpolate(trained, {}, 1.0) is trained


def test_difference_on_few_images_is_within_chance() -> None:
    assert within_chance(0.4167, 0.4583, 48)
    assert within_chance(0.5, 0.5, 1_000_000)
    assert not within_chance(0.84, 0.95, 1500)
    assert not within_chance(0.0, 1.0, 1)
