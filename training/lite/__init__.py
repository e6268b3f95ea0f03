"""The encoder `lite`: the recipe that trains its heads on frozen features, and `lite` as a base of training."""
