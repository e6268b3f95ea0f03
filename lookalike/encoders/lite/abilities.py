"""What `lite` understands and finds, as users read it. Imports no torch."""

from __future__ import annotations

LANGUAGES = ("en",)
"""ISO 639-1 codes of the languages of texts."""

LIMITS = "Good for everyday scenes and common things; not for fine distinctions, counting, written words or faces."
