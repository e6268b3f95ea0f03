"""Measuring encoders: retrieval by captions and by category. Knows the encoder protocol, no model and no store."""
