"""Hosted collections: their states, opening, eviction, probes, and the folders they are discovered in."""
