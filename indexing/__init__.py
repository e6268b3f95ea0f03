"""The offline job: pictures in, a published collection out. It knows nothing of HTTP and is never imported by `app`."""
