"""The report is one page that needs no other file, and its metrics are JSON."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.evaluate import measure
from evaluation.html_report import read_training_log, write_report
from evaluation.illustrations import _sample
from evaluation.mistakes import worst_mistakes
from evaluation.options import Options
from lookalike.encoders.fake import COLOURS, FakeEncoder
from lookalike.errors import SourceError
from tests.unit.small_images import example


def pages(folder: Path, **more: object) -> str:
    encoder, options = FakeEncoder(), Options(resamples=20)
    examples = [
        example(colour, colour, ("red <b>",) if colour == "green" else (colour,), f"{colour}-{i}&.png")
        for colour in COLOURS
        for i in range(4)
    ] + [example("red", "blue", ("blue",), "wrong")]
    found, baseline = (measure(encoder, examples, options=options) for _ in range(2))
    found.metrics["command"] = "lookalike evaluate <here>"
    return write_report(folder, found, baseline, **more).read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    training_log = folder / "metrics.jsonl"
    lines = [{"config": {}}, *({"step": i, "loss": 1 / i, "learning_rate": 0.1} for i in range(1, 60))]
    lines += [{"step": 30, "validation.map_at_r": 0.5}, {"step": 59, "validation.map_at_r": 0.6}]
    training_log.write_text("\n".join(map(json.dumps, lines)))
    pages(folder / "out", training_log=training_log)
    metrics = json.loads((folder / "out" / "figures.json").read_text())
    assert metrics["precision_at_1"] == metrics["baseline.precision_at_1"]
    return (folder / "out" / "report.html").read_text()


def test_report_has_every_section(page: str) -> None:
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Metrics",
        "Training",
        "Cosines of two images",
        "Cosines of an image and a text",
        "Probabilities",
        "Cosines of sample images",
        "t-SNE",
        "UMAP",
        "Worst retrieval errors",
        "Worst errors of captions",
    ]
    assert "<th>baseline</th>" in page
    assert len(page) < 5_000_000


def test_report_is_self_contained_and_escaped(page: str) -> None:
    assert set(re.findall(r'(?:src|href)="(\w+):', page)) == {"data"}
    assert "url(" not in page
    assert "lookalike evaluate &lt;here&gt;" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_embedded_images_are_valid(page: str) -> None:
    found = re.findall(r'src="data:image/(png|jpeg);base64,([^"]+)"', page)
    assert {kind for kind, _ in found} == {"png", "jpeg"}
    for kind, data in found:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == kind.upper()
            extremes = image.convert("L").getextrema()
            assert kind == "jpeg" or extremes[0] < extremes[1]  # no plot is empty


def test_mistake_shows_query_and_wrong_image(page: str) -> None:
    errors = page.partition("Worst retrieval errors")[2]
    first = re.findall(r'<figure class="(\w+)">.*?title="(.*?)">(.*?)</figure>', errors)
    assert first[0] == ("query", "wrong", "blue")
    assert first[1][0] == "wrong"
    assert first[1][2].startswith("red 1.000")


def test_training_log_is_read_or_rejected(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"config": 1}\n\n{"step": 2, "loss": 0.5}\n')
    assert read_training_log(path) == [{"step": 2, "loss": 0.5}]
    for text in ("[1]\n", "{\n"):
        path.write_text(text)
        with pytest.raises(SourceError, match=r"m\.jsonl"):
            read_training_log(path)
    with pytest.raises(SourceError, match="absent"):
        read_training_log(tmp_path / "absent")


def test_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="can't be written to"):
        pages(tmp_path / "file")


def test_mistakes_are_ranked_by_margin_per_confusion() -> None:
    angles = np.deg2rad([0, 90, 2, 4, 80, 89])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.array([0, 0, 1, 1, 2, 2])
    found = worst_mistakes(vectors, labels, None, labels, count=3, shown=2)
    assert {mistake.query for mistake in found} == {0, 1, 5}
    assert [mistake.margin for mistake in found] == sorted((mistake.margin for mistake in found), reverse=True)
    first = next(mistake for mistake in found if mistake.query == 0)
    assert (first.items, first.relevant, first.best) == ([2, 3], [False, False], 1)
    assert first.margin == pytest.approx(np.cos(angles[2]) - 0, abs=1e-6)
    assert worst_mistakes(vectors, labels, vectors, labels, count=3, shown=2) == []


def test_sample_has_two_images_of_a_class() -> None:
    labels = [str(i % 20) for i in range(200)]
    chosen = [labels[i] for i in _sample(labels, 16, seed=0)]
    assert len(chosen) == 16
    assert chosen == sorted(chosen)
    assert all(chosen.count(name) == 2 for name in chosen)
    assert len(_sample([None] * 5, 16, seed=0)) == 5
