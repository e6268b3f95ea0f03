"""What the crash test found to be wrong."""

from __future__ import annotations


class Failure(Exception):
    """A write was lost, an item is half there, or the service behaved in another way that it must not."""
