"""One file per resource; each reads a request, asks `app.execution.pipeline`, and writes JSON."""
