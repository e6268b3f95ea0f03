"""The training loop: optimizer, steps, cached gradients, cross-batch memory, and warnings."""
