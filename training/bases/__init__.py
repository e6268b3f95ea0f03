"""Encoders that training can start from, by name."""
