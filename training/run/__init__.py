"""A whole training run: checkpoints, logs, and the exported encoder."""
