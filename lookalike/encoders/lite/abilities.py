"""What `lite` understands and finds, as users read it. Imports no torch."""

from __future__ import annotations

LANGUAGES = ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh")
"""ISO 639-1 codes of the languages of texts."""

LIMITS = (
    "Good for everyday scenes, rooms, common things, fruit, clothes and instruments; "
    "not for dishes, brands and places by name, fine distinctions, counting, written words or faces."
)

TEMPERATURE = 0.03
"""Of the softmax over labels. The one of the smallest cross-entropy is 0.022 to 0.038, by the images and the number of
labels (`benchmarks/history/classify.md`)."""
