"""Sources of images: one module for each kind, and a registry that chooses by path."""
