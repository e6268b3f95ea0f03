"""Packages that are not of the core: imported when they are called for, and named with their extra where they lack."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from lookalike.errors import ExtraMissing

EXTRA = "train"


PAIRS = ("sklearn",)
"""What measuring pairs needs."""
REPORT = ("matplotlib", "sklearn", "umap")
"""What the report needs."""


def require(packages: Sequence[str], purpose: str) -> None:
    """Ask for packages before long work begins that would fail for want of them; imports nothing.

    Raises:
        ExtraMissing: one is not installed; the message says what for and what to install.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ExtraMissing(f"{purpose} needs {', '.join(missing)}: pip install 'lookalike[{EXTRA}]'")


def need(module: str) -> Any:
    """A module of the extra `train`: sklearn.metrics, matplotlib.figure, umap, ...

    Raises:
        ExtraMissing: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"{error.name} is not installed: pip install 'lookalike[{EXTRA}]'") from error
