"""A calibration is monotone or rejected, and is read back as written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lookalike.calibration import Calibration, PairCalibration, read_calibration, write_calibration
from lookalike.errors import WeightsInvalid

CURVE = PairCalibration(0.4, (0.1, 0.5, 0.7), (0.0, 0.5, 1.0))


def test_curve_is_linear_and_constant_beyond_its_knots() -> None:
    cosines = (-1.0, 0.1, 0.3, 0.5, 0.6, 0.7, 1.0)
    assert [CURVE.probability(cosine) for cosine in cosines] == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize(
    "wrong",
    [
        (2.1, (0.1,), (0.5,)),
        (float("nan"), (0.1,), (0.5,)),
        (0.4, (), ()),
        (0.4, (0.1, 0.2), (0.5,)),
        (0.4, (0.2, 0.2), (0.5, 0.5)),
        (0.4, (0.1, float("inf")), (0.5, 0.6)),
        (0.4, (0.1, 0.2), (0.6, 0.5)),
        (0.4, (0.1, 0.2), (0.6, 1.1)),
        (0.4, (0.1, 0.2), (float("nan"), 0.5)),
    ],
)
def test_invalid_curve_is_rejected(wrong: tuple) -> None:
    with pytest.raises(ValueError, match=r"threshold|cosines|probabilities"):
        PairCalibration(*wrong)


@pytest.mark.parametrize("calibration", [Calibration(), Calibration(CURVE), Calibration(CURVE, CURVE)])
def test_written_calibration_is_read_back(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "calibration.json"
    write_calibration(calibration, path)
    assert read_calibration(path) == calibration
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"text_text": null}', '{"image_image": {"threshold": 0.3}}', '{"image_image": [1]}']
)
def test_error_names_an_invalid_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(WeightsInvalid, match=r"calibration\.json is not a calibration"):
        read_calibration(path)
    with pytest.raises(WeightsInvalid, match="absent"):
        read_calibration(tmp_path / "absent")
