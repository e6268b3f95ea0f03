"""Where images come from: one file for each shape of source, and a registry that tells them apart."""
