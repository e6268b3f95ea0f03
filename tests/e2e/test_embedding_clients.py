"""Embeddings by the clients that programs already use: openai, LangChain and LlamaIndex; Jina's objects by httpx."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

from lookalike.bootstrap import load_encoder
from lookalike.encoders.protocol import TextEncoder
from tests.e2e.commands import serving

TEXTS = ["a cat", "a cup of coffee", "a rocket on its launch pad", "naïve 日本"]
KEY = "reader-0123456789abcdef"


@pytest.fixture(scope="module")
def base_url(sample_collection: Path) -> Iterator[str]:
    """The address of OpenAI's API at a service with the sample gallery, which requires a key."""
    with serving(sample_collection, LOOKALIKE_KEYS=f"read:{KEY}") as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key=KEY) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected() -> Any:
    encoder = load_encoder("lite")
    assert isinstance(encoder, TextEncoder)
    return encoder.encode_texts(TEXTS)


def cosines(found: Any, expected: Any) -> Any:
    """Cosine of each pair of rows; the service may have them in another batch, whose rounding differs."""
    found = np.asarray(found, np.float32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    return (found * expected).sum(axis=1)


def test_openai_gets_the_encoders_vectors(client: openai.OpenAI, expected: Any) -> None:
    response = client.embeddings.create(model="lite", input=TEXTS)  # base64, which the client decodes
    assert cosines([each.embedding for each in response.data], expected).min() > 0.999
    assert [each.index for each in response.data] == list(range(len(TEXTS)))
    assert response.usage.prompt_tokens == response.usage.total_tokens > len(TEXTS)
    numbers = client.embeddings.create(model="lite", input=TEXTS[0], encoding_format="float")
    np.testing.assert_allclose(numbers.data[0].embedding, response.data[0].embedding, atol=1e-2)


def test_openai_async_gets_the_same(base_url: str, expected: Any) -> None:
    async def embed() -> Any:
        async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY) as client:
            return await asyncio.gather(*(client.embeddings.create(model="lite", input=text) for text in TEXTS))

    rows = [response.data[0].embedding for response in asyncio.run(embed())]
    assert cosines(rows, expected).min() > 0.999


def test_openai_embeds_images_as_data_uris(client: openai.OpenAI, gallery: Path) -> None:
    image = base64.b64encode((gallery / "chelsea.png").read_bytes()).decode()
    response = client.embeddings.create(model="lite", input=[f"data:image/png;base64,{image}", "a cat", "a rocket"])
    chelsea, cat, rocket = (np.array(each.embedding) for each in response.data)
    assert chelsea @ cat > chelsea @ rocket + 0.1
    infinity = client.embeddings.create(model="lite", input=image, extra_body={"modality": "image"})
    assert chelsea @ np.array(infinity.data[0].embedding) > 0.999


def test_openai_lists_models(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert "lite" in models
    assert client.models.retrieve("lite") == models["lite"]


def test_openai_raises_its_own_errors(client: openai.OpenAI, base_url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="the models are lite") as unknown:
        client.embeddings.create(model="text-embedding-3-small", input="a cat")
    assert (unknown.value.code, unknown.value.param) == ("unknown_model", "model")
    with pytest.raises(openai.BadRequestError, match="token arrays are not supported"):
        client.embeddings.create(model="lite", input=[1, 2, 3])
    with pytest.raises(openai.BadRequestError) as empty:
        client.embeddings.create(model="lite", input=["a cat", " ", "a dog"])
    assert empty.value.param == "input.1"
    with pytest.raises(openai.BadRequestError, match="can't be shortened"):
        client.embeddings.create(model="lite", input="a cat", dimensions=8)
    with openai.OpenAI(base_url=base_url, api_key="unknown") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.embeddings.create(model="lite", input="a cat")


def test_langchain_embeds_texts(base_url: str, expected: Any) -> None:
    embeddings = OpenAIEmbeddings(
        model="lite",
        base_url=base_url,
        api_key=KEY,  # type: ignore[arg-type]
        check_embedding_ctx_length=False,
    )
    assert cosines(embeddings.embed_documents(TEXTS), expected).min() > 0.999
    assert cosines([embeddings.embed_query(TEXTS[0])], expected[:1]).min() > 0.999


def test_langchain_with_token_arrays_names_its_option(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = OpenAIEmbeddings(model="lite", base_url=base_url, api_key=KEY)  # type: ignore[arg-type]
    monkeypatch.setattr(type(embeddings), "_tokenize", lambda *_: ([0], [[1, 2, 3]], [0], [3]))  # else it downloads
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings.embed_documents(["a cat"])


def test_llama_index_embeds_texts(base_url: str, expected: Any) -> None:
    embeddings = OpenAILikeEmbedding(model_name="lite", api_base=base_url, api_key=KEY)
    assert cosines(embeddings.get_text_embedding_batch(TEXTS), expected).min() > 0.999
    assert cosines([embeddings.get_query_embedding(TEXTS[0])], expected[:1]).min() > 0.999


def test_jina_objects_are_embedded(base_url: str, gallery: Path) -> None:
    image = base64.b64encode((gallery / "chelsea.png").read_bytes()).decode()
    body = {
        "model": "lite",
        "task": "retrieval.passage",
        "late_chunking": False,
        "normalized": True,
        "input": [{"image": image}, {"text": "a cat"}, {"text": "a rocket"}],
    }
    response = httpx.post(f"{base_url}/embeddings", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
    assert response.status_code == 200, response.text
    chelsea, cat, rocket = (np.array(each["embedding"]) for each in response.json()["data"])
    assert chelsea @ cat > chelsea @ rocket + 0.1
