"""The HTTP API, one file per resource: each parses a request, calls `app.execution.pipeline` and writes JSON."""
