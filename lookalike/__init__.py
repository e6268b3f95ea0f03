"""The shared library: the only code that touches pixels, models, FAISS and Parquet.

It knows nothing of HTTP, of jobs or of training; both ways through the house (a query, an image) run through it.
"""
