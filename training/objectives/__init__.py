"""Objectives, the losses of contrastive training: one file each, and a `registry` by name.

To add one, write a subclass of `base.Objective` in a file of its own and add it to `registry`. Add a configuration to
configs/, a section to docs/reference/training-configuration.md, and a naive loop to tests/naive_losses.py, which the
tests compare it with.
"""

from training.objectives.base import Embedded, Need, Objective, Outcome, concat
from training.objectives.registry import make_objective, objective_names

__all__ = ["Embedded", "Need", "Objective", "Outcome", "concat", "make_objective", "objective_names"]
