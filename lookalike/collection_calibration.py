"""The calibration of searches that belongs to a collection, fitted on its user's own data.

It lies in the collection's root, so that it outlives versions, and holds for one encoder, by identity:

    {"encoder": {"weights": ..., "dim": ..., "image_size": ..., "preprocessing": ...}, "calibration": {...}}
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from lookalike.calibration import Calibration
from lookalike.paths import exists
from lookalike.types import Identity

CALIBRATION_FILE = "calibration.json"
_IDENTITY = ("weights", "dim", "image_size", "preprocessing")
_logger = logging.getLogger(__name__)


def collection_calibration_text(calibration: Calibration, identity: Identity) -> str:
    """Return the file's text."""
    encoder = dict(zip(_IDENTITY, identity, strict=True))
    return json.dumps({"encoder": encoder, "calibration": calibration.to_dict()}) + "\n"


def read_collection_calibration(root: Path, identity: Identity) -> Calibration | None:
    """Read the calibration of the collection at `root`.

    Returns:
        None where there is none. A damaged one, and one of another encoder than that of `identity`, are logged and
        not used.
    """
    path = root / CALIBRATION_FILE
    try:
        if not exists(path):
            return None
        record = json.loads(path.read_bytes())
        calibration = Calibration.from_dict(record["calibration"])
        encoder = tuple(record["encoder"][name] for name in _IDENTITY)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # the last three: JSON of another shape
        _ignore(path, f"it can't be read ({error!r:.200})")
        return None
    if encoder != identity:
        _ignore(path, f"it is for another encoder (weights {str(encoder[0])[:12]}) than the collection's")
        return None
    return calibration


def _ignore(path: Path, reason: str) -> None:
    _logger.warning(
        "calibration_ignored path=%s: %s; fit it again with `lookalike evaluate --calibrate`, or remove it",
        path,
        reason,
    )
