"""Figures of small sets that a reader can check, with the encoder whose vectors are colours."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.classes import unseen_classes
from evaluation.datasets import Example, read_examples
from evaluation.evaluate import describe, evaluate, measure
from evaluation.options import Options
from evaluation.pair_list import is_pair_list, measure_pair_list, read_pair_list
from evaluation.text_report import as_json, as_table, flat
from evaluation.views import two_views
from lookalike.bootstrap import load_encoder
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import SourceError, TextUnsupported
from lookalike.images import decode
from tests.unit.small_images import example, make_image, write_folders

ENCODER = FakeEncoder()
QUICK = Options(resamples=50)


class ImagesOnly(FakeEncoder):
    """The fake encoder without its words."""

    spec = replace(FakeEncoder.spec, text=False)


def test_matching_captions_find_their_image():
    examples = [example(colour, None, (f"a {colour} thing", f"all {colour}")) for colour in ("red", "green", "blue")]
    metrics = evaluate(ENCODER, examples, options=QUICK)
    perfect = {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0, "mean_rank": 1.0, "median_rank": 1.0}
    assert metrics["captions"] == {"images": 3, "captions": 6, "text_to_image": perfect, "image_to_text": perfect}
    assert (metrics["images"], metrics["rejected"]) == (3, 0)
    assert "labels" not in metrics
    assert "zero_shot" not in metrics


def test_wrong_captions_are_counted_as_misses():
    examples = [example("red", None, ("red",)), example("green", None, ("red again", "grey"))]
    found = evaluate(ENCODER, examples, options=QUICK)["captions"]["text_to_image"]
    # "red again" finds the red image first; the grey one lies as near to red as to green, and a tie counts against it
    assert found["R@1"] == pytest.approx(1 / 3)
    assert found["mean_rank"] == pytest.approx((1 + 2 + 2) / 3)


def test_unreadable_images_are_skipped_and_counted():
    broken = Example("broken", lambda: b"not an image", "red", ("green",))

    def fail() -> bytes:
        raise SourceError("gone")

    metrics = evaluate(ENCODER, [broken, example("red", None, ("red",)), Example("gone", fail)], options=QUICK)
    assert (metrics["images"], metrics["rejected"], metrics["captions"]["captions"]) == (1, 2, 1)
    with pytest.raises(SourceError, match="of 1 images none can be read"):
        evaluate(ENCODER, [broken])


def test_labels_are_searched_in_set_itself_or_gallery():
    examples = [example("red", "warm"), example("yellow", "warm"), example("blue", "cold"), example("blue", "cold")]
    metrics = evaluate(ENCODER, examples, options=QUICK)["labels"]
    assert (metrics["classes"], metrics["queries"], metrics["gallery"]) == (2, 4, 4)
    assert metrics["precision_at_1"] == metrics["map_at_r"] == 1.0
    gallery = [example("blue", "warm"), example("red", "cold"), example("green")]
    metrics = evaluate(ENCODER, examples, gallery=gallery, options=QUICK)["labels"]
    assert (metrics["queries"], metrics["gallery"]) == (4, 3)  # what has no label is there to be mistaken
    assert metrics["precision_at_1"] == 0.0
    assert metrics["hit_rate_at_5"] == 1.0


def test_unmatched_queries_count_and_unmatched_gallery_fails():
    examples = [example("red", "warm"), example("blue", "cold"), example("green", "odd"), example("white")]
    gallery = [example("yellow", "warm"), example("blue", "cold")]
    metrics = evaluate(ENCODER, examples, gallery=gallery, options=QUICK)
    assert (metrics["labels"]["queries"], metrics["labels"]["left_out"]) == (2, 1)
    assert any(line.split()[:3] == ["left", "out", "1"] for line in as_table(metrics).splitlines())
    with pytest.raises(SourceError, match=r"classes \(cold, odd, warm\); its classes are hot"):
        evaluate(ENCODER, examples, gallery=[example("red", "hot")], options=QUICK)
    with pytest.raises(SourceError, match="the gallery's images have none"):
        evaluate(ENCODER, examples, gallery=[example("red")], options=QUICK)
    captioned = [example(colour, None, (colour,)) for colour in ("red", "green")]
    with pytest.raises(SourceError, match="searched by labels, and the images have none"):
        evaluate(ENCODER, captioned, gallery=gallery, options=QUICK)


def test_unseen_classes_are_measured_separately():
    colours = [("red", "a"), ("red", "a"), ("blue", "b"), ("blue", "b"), ("green", "c"), ("yellow", "c")]
    examples = [example(colour, label) for colour, label in colours]
    metrics = evaluate(ENCODER, examples, options=replace(QUICK, unseen=("b", "c")))["labels"]
    assert (metrics["seen"]["classes"], metrics["unseen"]["classes"]) == (1, 2)
    assert (metrics["seen"]["gallery"], metrics["unseen"]["gallery"]) == (2, 4)
    # yellow is nearer to red than to green as long as red is there
    alone = evaluate(ENCODER, examples[2:], options=QUICK)["labels"]
    assert metrics["unseen"]["precision_at_1"] == alone["precision_at_1"]
    assert unseen_classes(["a", "b", "c"], 0.5) == {"b", "c"}
    for wrong in (("d",), 1.0, 0.0):
        with pytest.raises(SourceError, match=r"no image has|leaves none"):
            unseen_classes(["a", "b"], wrong)


def test_zero_shot_classifies_by_class_name():
    names = ["red_things", "green-things"]
    examples = [example("red", names[0])] * 3 + [example("green", names[0])] + [example("green", names[1])] * 2
    metrics = evaluate(ENCODER, examples, options=QUICK)["zero_shot"]
    assert metrics["precision_at_10"] == {"green-things": 1.0, "red_things": 1.0}
    assert metrics["accuracy"] == pytest.approx(5 / 6)
    numbered = [example("red", "0"), example("blue", "1"), example("red", "0"), example("blue", "1")]
    assert "zero_shot" not in evaluate(ENCODER, numbered, options=QUICK)


def test_separable_pairs_have_perfect_metrics():
    examples = [example(colour, colour) for colour in ("red", "green", "blue", "yellow") for _ in range(6)]
    found = measure(ENCODER, examples, options=QUICK)
    metrics = found.metrics["pairs"]["image_image"]
    assert metrics["f1"] == metrics["roc_auc"] == metrics["accuracy"] == 1.0
    assert metrics["expected_calibration_error"] == pytest.approx(0.0, abs=1e-6)
    assert found.calibration.image_text is None
    assert found.calibration.image_image is not None
    assert found.calibration.image_image.probability(1.0) == 1.0
    assert found.metrics["intervals"]["pairs.f1"] == [1.0, 1.0]


def test_negatives_of_captions_are_best_wrong_images():
    def negative_cosine(label_of_yellow: str | None) -> float:
        labels = {"red": "red", "blue": "blue", "yellow": label_of_yellow}
        examples = [
            example(colour, label, (colour, f"all {colour}"), f"{colour}{i}")
            for colour, label in labels.items()
            for i in range(8)
        ]
        pairs = evaluate(ENCODER, examples, options=replace(QUICK, measures=("pairs",)))["pairs"]["image_text"]
        assert pairs["positive_cosine"] > 0.999
        assert pairs["expected_calibration_error"] < 0.001
        return pairs["negative_cosine"]

    red, blue, yellow = ENCODER.encode_texts(["red", "blue", "yellow"])
    nearest = [yellow @ red, blue @ red, yellow @ red]  # of the texts "red", "blue" and "yellow"
    assert negative_cosine("yellow") == pytest.approx(float(np.mean(nearest)), abs=0.15)
    # an image without a label may show more than its captions say
    assert negative_cosine(None) == pytest.approx(float(np.mean([blue @ red, blue @ red, yellow @ red])), abs=0.15)
    assert negative_cosine("red") < 0.5 * negative_cosine("yellow")  # equal labels belong together


def test_views_of_one_label_are_no_negatives():
    examples = [example(colour, "warm", (), f"{colour}{i}") for colour in ("red", "yellow") for i in range(6)]
    examples += [example("blue", "cold", (), f"blue{i}") for i in range(6)]
    options = replace(QUICK, views=True, measures=("pairs",))
    pairs = evaluate(ENCODER, examples, options=options)["pairs"]["image_image"]
    assert pairs["positive_cosine"] == pytest.approx(1, abs=1e-3)
    assert pairs["negative_cosine"] < 0.3  # blue against yellow or red, never yellow against red


def test_pair_splits_are_disjoint_and_seeded():
    colours = ("red", "green", "blue", "yellow", "black", "white")
    examples = [example(colour, colour[0], (colour,), f"{colour}{i}") for colour in colours for i in range(4)]
    first, again = (evaluate(ENCODER, examples, options=QUICK)["pairs"] for _ in range(2))
    assert first == again
    assert set(first) == {"image_image", "image_text"}
    assert first["image_text"]["validation_pairs"] == first["image_text"]["test_pairs"] == 24
    few = evaluate(ENCODER, examples, options=replace(QUICK, pairs=16))["pairs"]["image_text"]
    assert (few["validation_pairs"], few["test_pairs"]) == (8, 8)


def test_encoder_without_text_is_measured_by_labels():
    examples = [example(colour, colour, (colour,)) for colour in ("red", "red", "blue", "blue")]
    metrics = evaluate(ImagesOnly(), examples, options=QUICK)
    assert "labels" in metrics
    assert not metrics.keys() & {"captions", "zero_shot"}
    with pytest.raises(TextUnsupported, match="'fake'"):
        evaluate(ImagesOnly(), [example("red", None, ("red",))] * 2)
    with pytest.raises(SourceError, match="nothing to measure"):
        evaluate(ENCODER, [example("red", "a"), example("blue", "b")], options=replace(QUICK, measures=("labels",)))


def test_two_views_are_deterministic_crops(shared_data: Path):
    examples = read_examples([str(shared_data / "flickr8k" / "val.tar")], limit=40)
    views = two_views(examples)
    assert [view.label for view in views[:4]] == [examples[0].key] * 2 + [examples[1].key] * 2
    assert views[0].load() == two_views(examples)[0].load() != views[1].load()
    sizes = [decode(view.load()).image.size for view in views]
    areas = [width * height / 224**2 for width, height in sizes]
    assert 0.25 < min(areas) < 0.5 < max(areas) < 0.82
    lite = load_encoder("lite")
    metrics = evaluate(lite, examples, options=replace(QUICK, views=True, measures=("pairs",)))["pairs"]
    assert metrics["image_image"]["roc_auc"] > 0.97
    assert metrics["image_text"]["roc_auc"] > 0.85


def test_lite_calibration_holds_on_photographs(shared_data: Path):
    calibration = load_encoder("lite").spec.calibration
    assert calibration is not None
    # A caption's negative is the best wrong photograph; test_lite has captions against any other.
    for kind, least, error, certain in (("image_image", 0.93, 0.04, 0.99), ("image_text", 0.7, 0.11, 0.94)):
        curve = getattr(calibration, kind)
        assert list(curve.probabilities) == sorted(curve.probabilities)
        assert curve.probability(1.0) > certain > 1 - certain > curve.probability(-0.1)
        metrics = _lite_pairs(shared_data)[kind]
        assert metrics["threshold"] == pytest.approx(curve.threshold, abs=0.06)
        assert metrics["f1"] > least
        assert metrics["expected_calibration_error"] < error


def _lite_pairs(data: Path) -> dict:
    if not _PAIRS:
        examples = read_examples([str(data / "flickr8k" / "val.tar")], limit=500)
        options = Options(measures=("pairs",), views=True, calibration="platt", resamples=0, seed=1)
        _PAIRS.update(evaluate(load_encoder("lite"), examples, options=options)["pairs"])
    return _PAIRS


_PAIRS: dict = {}


def pair_table(folder: Path, ending: str, texts: bool = False) -> Path:
    write_folders(folder, {f"{colour}.png": colour for colour in ("red", "green", "blue")})
    rows = []
    for a in ("red", "green", "blue"):
        for b in ("red", "green", "blue"):
            side = {"text": f"a {b} thing"} if texts else {"b": f"{b}.png"}
            rows += [{"a": f"{a}.png", **side, "same": int(a == b)}] * 3
    path = folder / f"pairs{ending}"
    if ending == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("texts", [False, True])
def test_pair_list_is_evaluated(tmp_path: Path, ending: str, texts: bool):
    path = pair_table(tmp_path, ending, texts)
    assert is_pair_list(path)
    metrics = measure_pair_list(ENCODER, read_pair_list(path), options=QUICK).metrics
    assert list(metrics["pairs"]) == ["image_text" if texts else "image_image"]
    assert flat(metrics)["pairs.image_text.f1" if texts else "pairs.f1"] == 1.0
    assert metrics["images"] == 3


def test_pair_list_skips_unreadable_images_and_reports_bad_tables(tmp_path: Path):
    path = pair_table(tmp_path, ".csv")
    (tmp_path / "red.png").write_bytes(b"no image")
    found = measure_pair_list(ENCODER, read_pair_list(path), options=QUICK).metrics
    assert (found["images"], found["rejected"]) == (2, 1)
    assert found["pairs"]["image_image"]["validation_pairs"] + found["pairs"]["image_image"]["test_pairs"] == 12
    for text, why in (
        ("a,b\n1,2\n", "has the columns a, b: pairs need"),
        ("a,b,same\nx,y,maybe\n", "'maybe'"),
        ("", "holds no pairs"),
    ):
        path.write_text(text)
        with pytest.raises(SourceError, match=why):
            read_pair_list(path)
    path.write_text("a;b;same\ngreen.png;blue, dark.png;0\n")
    assert read_pair_list(path).images == ["blue, dark.png", "green.png"]
    path.write_text("a,b,same\ngreen.png,green.png,1\n")
    with pytest.raises(SourceError, match="1 readable pairs"):
        measure_pair_list(ENCODER, read_pair_list(path), options=QUICK)
    pq.write_table(pa.table({"image": [make_image("red")], "label": ["a"]}), tmp_path / "labelled.parquet")
    assert not is_pair_list(tmp_path / "labelled.parquet")


def test_invalid_options_are_rejected():
    for wrong in ({"measures": ("label",)}, {"prompt": "a photo"}, {"pairs": 2}, {"depths": ()}):
        with pytest.raises(ValueError, match=r"unknown measure|has no|must be"):
            Options(**wrong)


def test_json_has_flat_names_and_table_has_sections():
    examples = [example(colour, colour, (colour,)) for colour in ("red", "green", "blue") for _ in range(4)]
    metrics = evaluate(ENCODER, examples, options=replace(QUICK, unseen=("red", "green")))
    line = as_json(metrics, metrics)
    assert "\n" not in line
    read = json.loads(line)
    for name in ("precision_at_1", "map_at_r", "pairs.f1", "pairs.image_text.f1", "unseen.precision_at_1"):
        assert isinstance(read[name], float), name
        assert read[f"baseline.{name}"] == read[name]
        assert read["intervals"][name][0] <= read[name] <= read["intervals"][name][1]
    assert read["labels"]["precision_at_1"] == read["precision_at_1"]
    assert read["captions"]["text_to_image"]["R@1"] == read["captions.text_to_image.R@1"]
    table = as_table(metrics, metrics)
    for text in ("precision at 1", "labels, unseen classes", "image pairs", "baseline", "P@10 of 'a photo of a {}'"):
        assert text in table
    assert max(map(len, as_table(metrics).splitlines()[:-3])) <= 80


def test_description_of_an_encoder_keeps_its_keys() -> None:
    assert set(describe(load_encoder("fake").spec)) == {
        "name", "weights", "dim", "image_size", "preprocessing", "text", "engine", "precision", "device", "thresholds",
    }  # fmt: skip
