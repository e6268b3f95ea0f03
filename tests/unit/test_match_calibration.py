"""The probability of search results, and where it is stored."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from cli.evaluate import _require_same_encoder, _store_calibration
from evaluation import search_trials
from evaluation.datasets import Example, read_examples
from evaluation.embedded_set import EmbeddedSet, embed
from evaluation.options import Options
from evaluation.search_evaluation import fit_matches, measure_image_search, measure_text_search, search_metrics
from evaluation.search_trials import Trial, half_nonsense, names
from lookalike.calibration import Calibration
from lookalike.collection import open_collection
from lookalike.collection_calibration import (
    CALIBRATION_FILE,
    collection_calibration_text,
    read_collection_calibration,
)
from lookalike.encoders.fake import FakeEncoder
from lookalike.encoders.registry import calibration_of, load_encoder
from lookalike.errors import EncoderMismatch, SourceError
from lookalike.match_calibration import MatchCalibration
from lookalike.row_sample import SAMPLE_FILE, SAMPLE_ROWS, draw_sample, read_sample, write_sample
from tests.api.small_collection import build_collection

MODEL = MatchCalibration(-5.0, 30.0, 0.5, -0.5, 10.0, 0.05, 0.1)
DATA = Path(os.environ.get("LOOKALIKE_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
IDENTITY = ("a" * 64, 4, 224, "b" * 64)


@pytest.mark.parametrize("background", [[], [0.3], [0.3] * 500, list(np.linspace(-0.1, 0.4, 24))])
@pytest.mark.parametrize("count", [0, 1, 24, 1_000_000])
def test_probabilities_rise_with_the_score_in_bounds(background: list[float], count: int) -> None:
    values = MODEL.probabilities(np.linspace(-1, 1, 50), background, count)
    assert np.isfinite(values).all()
    assert values.min() >= 0
    assert values.max() <= 1
    assert (np.diff(values) >= 0).all()
    assert MODEL.probabilities([], background, count).shape == (0,)


def test_more_items_make_the_best_one_less_probable() -> None:
    few, many = (MODEL.probabilities([0.3], [0.1, 0.2], count)[0] for count in (10, 10_000))
    assert many < few


@pytest.mark.parametrize(
    ("change", "message"),
    [({"score": -1.0}, "must not fall"), ({"log_count": 0.1}, "must not rise"), ({"spread": float("nan")}, "finite")],
)
def test_weights_that_make_no_sense_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MatchCalibration(**{**asdict(MODEL), **change})


def test_calibration_round_trips_and_old_ones_load() -> None:
    calibration = Calibration(text_search=MODEL)
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration
    assert Calibration.from_dict({"image_image": None}).text_search is None
    with pytest.raises(ValueError, match="missing or unknown"):
        Calibration.from_dict({"text_search": {"score": 1.0}})


def test_sample_is_stable_and_drawn_where_missing(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(3 * SAMPLE_ROWS, 4)).astype(np.float16)
    drawn = read_sample(tmp_path, vectors)
    write_sample(tmp_path, vectors)
    assert (tmp_path / SAMPLE_FILE).exists()
    np.testing.assert_array_equal(read_sample(tmp_path, vectors), drawn)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-6)
    assert drawn.shape == (SAMPLE_ROWS, 4)
    assert not drawn.flags.writeable
    assert len(draw_sample(vectors[:3])) == 3


def test_calibration_of_the_collection_is_for_its_encoder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calibration = Calibration(text_search=MODEL)
    assert read_collection_calibration(tmp_path, IDENTITY) is None
    (tmp_path / CALIBRATION_FILE).write_text(collection_calibration_text(calibration, IDENTITY))
    assert read_collection_calibration(tmp_path, IDENTITY) == calibration
    with caplog.at_level(logging.WARNING):
        assert read_collection_calibration(tmp_path, ("c" * 64, *IDENTITY[1:])) is None
    assert "another encoder" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"encoder": {}, "calibration": {"text_search": {"score": 1}}}'])
def test_damaged_calibration_is_logged_and_not_used(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(text)
    with caplog.at_level(logging.WARNING):
        assert read_collection_calibration(tmp_path, IDENTITY) is None
    assert "calibration_ignored" in caplog.text


def _trials(seed: int) -> list[Trial]:
    rng = np.random.default_rng(seed)
    kinds = [("label", True), ("label", False), ("caption", True), ("foreign", False), ("nonsense", False)]
    return [
        Trial(kind, rng.normal(0.3 if right else 0.2, 0.03), rng.normal(0, 0.1, 50).astype(np.float32), 100, right)
        for kind, right in kinds
        for _ in range(100)
    ]


def test_fitted_probability_separates_right_from_wrong() -> None:
    calibration, trials = fit_matches(_trials(0)), _trials(1)
    assert calibration is not None
    predicted = [calibration.probabilities([each.score], each.background, each.count)[0] for each in trials]
    metrics = search_metrics(np.array(predicted), trials)
    assert metrics["captions_balanced_accuracy"] > 0.9
    assert metrics["labels_balanced_accuracy"] > 0.9
    assert metrics["labels_expected_calibration_error"] < 0.2
    assert metrics["nonsense_rejected"] > 0.9


def test_nonsense_alone_gives_no_calibration() -> None:
    assert fit_matches([trial for trial in _trials(0) if trial.kind in ("caption", "nonsense")]) is None


def test_halves_ask_different_nonsense() -> None:
    halves = [half_nonsense(half, 0) for half in (0, 1)]
    assert not set(halves[0]) & set(halves[1])
    assert min(len(set(half)) for half in halves) > 100


def test_large_sets_are_searched_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_trials, "MAX_IMAGES", 60)
    vectors = np.random.default_rng(0).normal(size=(400, 13)).astype(np.float32)
    examples = [Example(str(i), bytes, f"class {chr(97 + i % 8)}") for i in range(len(vectors))]
    data = EmbeddedSet(examples, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 0, load_encoder("fake"))
    trials = search_trials.image_trials(data, 0, Options())
    assert trials
    assert max(trial.count for trial in trials) <= 60


def test_image_names_a_label_as_whole_words() -> None:
    example = Example("a", bytes, "steel_drum", ("two bands",))
    assert [names(example, label) for label in ("drum", "band", "rum")] == [True, True, False]


def test_calibrate_stores_with_the_collection_of_the_encoder(tmp_path: Path) -> None:
    root, spec = build_collection(tmp_path / "photographs"), FakeEncoder.spec
    with pytest.raises(SourceError, match="which results match"):
        _store_calibration(Calibration(), spec, root)
    _store_calibration(Calibration(text_search=MODEL), spec, root)
    _require_same_encoder(root, spec)
    assert open_collection(root).calibration == Calibration(text_search=MODEL)
    with pytest.raises(EncoderMismatch, match="its own encoder"):
        _require_same_encoder(root, replace(spec, weights="f" * 64))


def test_calibration_of_an_encoder_needs_no_weights() -> None:
    assert calibration_of("fake") is None
    assert calibration_of("nothing") is None
    lite = calibration_of("lite")
    assert lite is not None
    assert lite.text_search is not None


def test_weight_of_the_wrong_sign_is_left_out() -> None:
    """More items make wrong results of these trials rarer, which can't be learned."""
    rng = np.random.default_rng(0)
    trials = [
        Trial("label", rng.normal(0.25, 0.05), rng.normal(0, 0.1, 50).astype(np.float32), 1_000 if right else 10, right)
        for right in (True, False)
        for _ in range(100)
    ]
    calibration = fit_matches(trials)
    assert calibration is not None
    assert calibration.log_count == 0


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no captioned photographs at {DATA}: set LOOKALIKE_TEST_DATA")
def test_probability_of_lite_on_unseen_data() -> None:
    """The figures of the guide, within what another processor's rounding changes."""
    encoder = load_encoder("lite")
    data = embed(encoder, read_examples([str(DATA / "flickr8k/val.tar"), str(DATA / "broad/val.tar")]))
    texts, images = measure_text_search(data, Options()), measure_image_search(data, Options())
    assert texts is not None
    assert texts.metrics["captions_balanced_accuracy"] >= 0.91
    assert texts.metrics["labels_balanced_accuracy"] >= 0.75
    assert texts.metrics["labels_expected_calibration_error"] <= 0.12
    assert texts.metrics["nonsense_rejected"] >= 0.95
    assert images is not None
    assert images.metrics["labels_expected_calibration_error"] <= 0.12
    shipped = encoder.spec.calibration
    assert shipped is not None
    assert shipped.text_search is not None
    assert shipped.text_search.score == pytest.approx(texts.calibration.score, rel=0.2)
