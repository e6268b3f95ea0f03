"""Contrastive training of encoders. Imports evaluation and retrieval; nothing of the service knows of it."""
