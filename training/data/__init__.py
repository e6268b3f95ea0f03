"""Training and validation images: splits, decoded pixels, and batches of random views."""
