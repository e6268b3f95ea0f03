"""Generated pages of the Reference: the HTTP API, the command line, settings and errors."""
