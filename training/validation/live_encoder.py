"""A model in training as an encoder, so that everything which measures encoders measures it, too.

Dimension letters: n rows, d joint width, S side of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image

from lookalike.encoders.dual import unit_rows
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import TextUnsupported
from lookalike.types import EncoderSpec, Float32, UInt8
from training.network.model import Trainable
from training.validation.validation import batch_for, tokenized


class LiveEncoder:
    """See `TextEncoder`; torch in fp32 on the model's device.

    Args:
        model: in eval mode from now on.
        name: what reports call it.
        device: where the towers are.
    """

    def __init__(self, model: Trainable, name: str, device: torch.device) -> None:
        self._model = model
        self._device = device
        self.preprocessing: Preprocessing = model.preprocessing
        self.spec = EncoderSpec(
            name=name,
            weights="",
            dim=model.dim,
            image_size=model.preprocessing.size,
            preprocessing=model.preprocessing.digest,
            text=model.tokens is not None,
            engine="torch",
            precision="fp32",
            device=device.type,
        )
        model.modules().eval()

    @property
    def weight_bytes(self) -> int:
        """See `Encoder`."""
        return sum(tensor.nbytes for tensor in self._model.modules().state_dict().values())

    @property
    def image_batch(self) -> int:
        """See `Encoder`."""
        return batch_for(self._device)

    @property
    def max_concurrent_batches(self) -> int:
        """See `Encoder`."""
        return 1

    def preprocess(self, image: Image) -> UInt8:
        """See `Encoder`."""
        return self.preprocessing(image)

    def encode_images(self, batch: UInt8) -> Float32:
        """See `Encoder`."""
        if len(batch) == 0:
            return np.zeros((0, self.spec.dim), np.float32)
        parts = torch.split(torch.from_numpy(np.ascontiguousarray(batch)), batch_for(self._device))
        with torch.inference_mode():
            rows = [self._model.encode_images(part.to(self._device)) for part in parts]
        return unit_rows(torch.cat(rows).cpu().numpy())

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """See `TextEncoder`."""
        if self._model.tokens is None:
            raise TextUnsupported(f"{self.spec.name!r} was trained on images alone")
        if not texts:
            return np.zeros((0, self.spec.dim), np.float32)
        with torch.inference_mode():
            rows = self._model.encode_texts(tokenized(self._model, texts, self._device))
        return unit_rows(rows.cpu().numpy())
