"""The `lookalike` command: one file a sub-command; each imports the room it calls only when it is called."""
