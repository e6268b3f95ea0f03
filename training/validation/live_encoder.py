"""A model in training as an encoder, so that code which measures encoders can measure it.

Dimension letters: n rows, d joint width, S side of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image
from typing_extensions import override

from lookalike.encoders.dual_encoder import unit_rows
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.encoders.protocol import TextEncoder
from lookalike.errors import TextUnsupported
from lookalike.types import EncoderSpec, Float32, UInt8
from training.network.trainable import Trainable, inference_batch_size


class LiveEncoder(TextEncoder):
    """A model in training, run by torch in fp32 on the model's device.

    Args:
        model: put into eval mode.
        name: in reports.
        device: of the towers.
    """

    def __init__(self, model: Trainable, name: str, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._spec = EncoderSpec(
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
    @override
    def spec(self) -> EncoderSpec:
        return self._spec

    @property
    @override
    def preprocessing(self) -> Preprocessing:
        return self._model.preprocessing

    @property
    @override
    def weight_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._model.modules().state_dict().values())

    @property
    @override
    def image_batch_size(self) -> int:
        return inference_batch_size(self._device)

    @property
    @override
    def max_concurrent_batches(self) -> int:
        return 1

    @override
    def preprocess(self, image: Image) -> UInt8:
        return self.preprocessing(image)

    @override
    def encode_images(self, batch: UInt8) -> Float32:
        if len(batch) == 0:
            return np.zeros((0, self.spec.dim), np.float32)
        parts = torch.split(torch.from_numpy(np.ascontiguousarray(batch)), self.image_batch_size)
        with torch.inference_mode():
            rows = [self._model.encode_images(part.to(self._device)) for part in parts]
        return unit_rows(torch.cat(rows).cpu().numpy())

    @override
    def encode_texts(self, texts: Sequence[str]) -> Float32:
        if not self.spec.text:
            raise TextUnsupported(f"{self.spec.name!r} was trained on images alone")
        if not texts:
            return np.zeros((0, self.spec.dim), np.float32)
        with torch.inference_mode():
            rows = self._model.encode_texts(self._model.tokenize(texts, self._device))
        return unit_rows(rows.cpu().numpy())
