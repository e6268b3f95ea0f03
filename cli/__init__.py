"""The `lookalike` command: one file a sub-command; each imports the packages that it needs only when it runs."""
