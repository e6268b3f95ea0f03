"""The HTTP service: it turns requests into queries of `lookalike`, and results into responses."""
