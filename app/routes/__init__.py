"""One file per resource; each reads a request, asks `app.queries`, and writes JSON."""
