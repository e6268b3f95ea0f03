"""Imports of optional packages; a missing one is reported with the extra that installs it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from lookalike.errors import ExtraMissing

EXTRA = "train"
PAIRS = ("sklearn",)
"""Packages for measuring pairs."""
REPORT = ("matplotlib", "sklearn", "umap")
"""Packages for the report."""


def require_packages(packages: Sequence[str], purpose: str) -> None:
    """Check that packages are installed, before long work that needs them; imports nothing.

    Raises:
        ExtraMissing: one is not installed; the message names the purpose and the extra.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ExtraMissing(
            f"{purpose} needs {', '.join(missing)}: pip install '.[{EXTRA}]' in Lookalike's source folder"
        )


def import_extra(module: str) -> Any:
    """Import a module of the extra `train`: sklearn.metrics, matplotlib.figure, umap, ...

    Raises:
        ExtraMissing: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"{error.name} is not installed: pip install '.[{EXTRA}]' in Lookalike's source folder"
        ) from error
