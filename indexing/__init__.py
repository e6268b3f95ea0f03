"""The offline job: images in, a published collection out. It knows nothing of HTTP and is never imported by `app`."""
