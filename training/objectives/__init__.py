"""What a batch of embeddings is asked to do: one file for each objective, made by name in `registry`."""

from training.objectives.base import Embedded, Need, Objective, Outcome, concat
from training.objectives.registry import make_objective, objective_names

__all__ = ["Embedded", "Need", "Objective", "Outcome", "concat", "make_objective", "objective_names"]
