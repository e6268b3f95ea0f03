"""The calls that use a collection's encoder alone: embeddings, matrices and classes."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import httpx

from lookalike_client.call import Call, given_options, member, read_json, record
from lookalike_client.errors import ResponseInvalid
from lookalike_client.images import ImageInput
from lookalike_client.inputs import Input, Part, as_part, as_parts, side_body
from lookalike_client.results import Classification, Embeddings, Model, SimilarityMatrix


def similarity_matrix(base: str, a: Sequence[Input], b: Sequence[Input] | None) -> Call[SimilarityMatrix]:
    """Compare each input of a with each of b."""
    body = {"a": [side_body(each) for each in a]}
    if b is not None:
        body["b"] = [side_body(each) for each in b]
    return Call(method="POST", path=f"{base}/similarity/matrix", read=record(SimilarityMatrix), json=body)


def classify(
    base: str,
    images: ImageInput | Part | Sequence[ImageInput | Part],
    labels: Sequence[str],
    template: str | Sequence[str] | None,
) -> Call[list[Classification]]:
    """Compare images with labels."""
    given: Any = images if isinstance(images, list | tuple) else [images]
    inputs = [side_body(each if isinstance(each, Part) else Part(image=each)) for each in given]
    body = given_options({"inputs": inputs, "labels": labels, "template": template})
    return Call(method="POST", path=f"{base}/classify", read=member("results", list[Classification]), json=body)


def embed(inputs: Input | Sequence[Input], model: str | None) -> Call[Embeddings]:
    """Embed texts and images."""
    body = {"input": [_input(part) for part in as_parts(inputs)], "encoding_format": "base64"}
    return Call(
        method="POST", path="/v1/embeddings", read=_read_embeddings, json={**body, **given_options({"model": model})}
    )


def models() -> Call[list[Model]]:
    """List the models."""
    return Call(method="GET", path="/v1/models", read=member("data", list[Model]))


def model(name: str) -> Call[Model]:
    """Get a model."""
    return Call(method="GET", path=f"/v1/models/{quote(name, safe='')}", read=record(Model))


def _input(part: Part) -> dict[str, str]:
    """Return an input in Jina's form: an image is base64 or a URL."""
    if part.id is not None:
        raise ValueError("the embedding of an item comes with search(id=..., limit=1, include=['embedding'])")
    body: dict[str, Any] = side_body(as_part(part))
    return {"image": body["url"]} if "url" in body else body


def _read_embeddings(response: httpx.Response) -> Embeddings:
    body = read_json(response)
    try:
        vectors = [_floats(entry["embedding"]) for entry in sorted(body["data"], key=lambda entry: entry["index"])]
        return Embeddings(model=body["model"], embeddings=vectors, prompt_tokens=body["usage"]["prompt_tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResponseInvalid(f"the response has no embeddings: {error!r}") from error


def _floats(encoded: str) -> list[float]:
    """Return the numbers of little-endian float32 in base64."""
    values = array("f", base64.b64decode(encoded))
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
