"""Python client of Lookalike."""
