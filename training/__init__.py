"""Contrastive training of encoders.

settings      a TOML file -> the checked configuration
objectives    losses, by name
data          images -> splits, cached pixels, batches of random views
network       towers that can be trained: stages, new heads, fast layers
bases         encoders that training can start from, by name
loop          optimizer, steps, cached gradients, cross-batch memory, warnings
validation    the figure that selects weights, and the comparison with the base
run           a whole run: checkpoints, logs, the exported encoder
distributed   several processes under torchrun
lite          the encoder `lite`: its heads' recipe, and `lite` as a base
"""
