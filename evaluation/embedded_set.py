"""Examples with their embeddings, the input of every measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation.datasets import Example
from evaluation.embedding import ProgressCallback, embed_images, embed_texts
from lookalike.encoders.protocol import Encoder
from lookalike.errors import SourceError
from lookalike.types import Float32, Int64


@dataclass(frozen=True)
class EmbeddedSet:
    """n readable examples with their embeddings.

    Attributes:
        examples: n of them.
        vectors: (n, d) float32 of unit norm.
        rejected: number of unreadable examples.
        encoder: the encoder of the vectors.
    """

    examples: list[Example]
    vectors: Float32
    rejected: int
    encoder: Encoder

    @cached_property
    def classes(self) -> list[str]:
        """The labels, sorted, each once."""
        return sorted({example.label for example in self.examples if example.label is not None})

    @cached_property
    def captioned(self) -> Int64:
        """(c,) positions of the examples that have captions."""
        return np.array([i for i, example in enumerate(self.examples) if example.captions], np.int64)

    @cached_property
    def owners(self) -> Int64:
        """(t,) for each caption the position of its example in `captioned`."""
        counts = [len(self.examples[i].captions) for i in self.captioned]
        return np.repeat(np.arange(len(counts)), counts)

    @cached_property
    def caption_vectors(self) -> Float32:
        """(t, d) of all captions.

        Raises:
            TextUnsupported: the encoder has no text tower here.
        """
        return embed_texts(self.encoder, [text for i in self.captioned for text in self.examples[i].captions])


def embed(encoder: Encoder, examples: Sequence[Example], progress: ProgressCallback | None = None) -> EmbeddedSet:
    """Embed the readable examples.

    Raises:
        SourceError: none can be read.
    """
    vectors, kept = embed_images(encoder, (example.load for example in examples), progress=progress)
    if not kept:
        raise SourceError(f"of {len(examples)} images none can be read")
    return EmbeddedSet([examples[i] for i in kept], vectors, len(examples) - len(kept), encoder)
