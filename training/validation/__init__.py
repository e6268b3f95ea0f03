"""The validation figure of a model, and the comparison of a trained encoder with its base."""
