"""The editions of `lite`: vectors of two editions can't be compared, and a release has one. Imports no torch."""

from __future__ import annotations

from lookalike.encoders.lite.weights import weights_digest

FIRST_EDITION = "53a6527ec49df2c62aa008dd0fcd3206c73275b87056144ddac53eacb233d784"
"""`weights_digest()` of the first edition."""

FIRST_EDITION_DIM = 640
"""Width of the first edition's vectors."""


def is_first_edition(weights: str) -> bool:
    """Return whether an encoder's weights are those of the first edition, which this release no longer has.

    Args:
        weights: as in `EncoderSpec`.
    """
    return weights == FIRST_EDITION != weights_digest()
