"""Many inputs of one request are embedded some at a time, and the first error names its input."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest

from app.admission import AdmissionControllers
from app.api.input_embedding import embed_inputs
from app.api.request_admission import Admission
from app.api.request_bodies import Base64Image
from app.errors import Base64Invalid, DeadlineExceeded, InputError, Overloaded, is_client_error
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import ItemQuery, Query, QueryPipeline, TextQuery
from app.middleware.problems import problem_of
from lookalike.errors import UnknownItem
from lookalike.search import Embedding
from lookalike.stopwatch import Stopwatch


class SlowPipeline:
    """Embeds the text `n` as a vector of n after some time; knows no item."""

    def __init__(self, seconds: float = 0.001) -> None:
        self.seconds = seconds
        self.running = self.most_running = self.counted = 0

    async def embed(self, query: Query, stopwatch: Stopwatch) -> Embedding:
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if isinstance(query, ItemQuery):
            raise UnknownItem("no item has the id 'x'")
        assert isinstance(query, TextQuery)
        stopwatch.add("encode", int(query.text) / 1000)
        return Embedding(np.array([int(query.text)], np.float32), "text")

    def count(self, stopwatch: Stopwatch) -> None:
        self.counted += 1

    async def run_in_pool(self, call: Any) -> Any:
        return call()


def admission(controllers: AdmissionControllers, deadline: float = 10.0) -> Admission:
    return Admission(controllers, "text", deadline)


async def embed(
    inputs: list[Any], pipeline: SlowPipeline, controllers: AdmissionControllers, deadline: float = 10.0
) -> Any:
    own = admission(controllers, deadline)
    names = [f"input.{position}" for position in range(len(inputs))]
    fetcher = ImageFetcher(enabled=False, allowed="", max_bytes=1, timeout=1.0)
    async with own._timeout:
        own.admit()
        try:
            return await embed_inputs(inputs, names, cast(QueryPipeline, pipeline), fetcher, own)
        finally:
            own._finish(client_error=False)


@pytest.mark.anyio
async def test_embeddings_keep_the_order_of_inputs_within_a_window() -> None:
    pipeline, controllers = SlowPipeline(), AdmissionControllers(2.0)
    embedded = await embed([TextQuery(str(n)) for n in range(300)], pipeline, controllers)
    assert [float(each.vector[0]) for each in embedded.embeddings] == list(range(300))
    assert embedded.took_ms["encode"] == pytest.approx(299.0)
    assert 1 < pipeline.most_running <= 64
    assert pipeline.counted == 300
    assert controllers["text"].in_flight == 0


@pytest.mark.anyio
async def test_error_names_its_input_and_has_the_code_of_its_cause() -> None:
    pipeline, controllers = SlowPipeline(), AdmissionControllers(2.0)
    for bad, code, status in [(Base64Image("%"), "base64_invalid", 422), (ItemQuery("x"), "unknown_item", 404)]:
        with pytest.raises(InputError) as caught:
            await embed([TextQuery("1"), TextQuery("2"), bad], pipeline, controllers)
        assert is_client_error(caught.value)
        problem = problem_of(caught.value, {"type": "http", "path": "/"})
        assert (problem.code, problem.status) == (code, status)
        assert problem.detail.startswith("input.2: ")
        assert problem.errors is not None
        assert problem.errors[0]["field"] == "input.2"
    assert pipeline.running == 0
    assert all(each.in_flight == 0 for each in controllers.by_kind.values())
    assert isinstance(InputError("a", Base64Invalid("b")).cause, Base64Invalid)


@pytest.mark.anyio
async def test_overload_refuses_all_inputs_at_once() -> None:
    pipeline, controllers = SlowPipeline(), AdmissionControllers(2.0)
    for _ in range(64):
        controllers["image"].acquire()
    with pytest.raises(Overloaded):
        await embed([TextQuery("1"), Base64Image("AAAA")], pipeline, controllers)
    assert pipeline.most_running == 0


@pytest.mark.anyio
async def test_deadline_starts_again_with_each_input() -> None:
    controllers = AdmissionControllers(2.0)
    pipeline = SlowPipeline(0.1)
    embedded = await embed([TextQuery("1")] * 300, pipeline, controllers, deadline=0.3)  # 5 windows of 0.1 s
    assert len(embedded.embeddings) == 300
    with pytest.raises((TimeoutError, DeadlineExceeded)):
        await embed([TextQuery("1")] * 3, SlowPipeline(0.5), controllers, deadline=0.1)
    assert controllers["text"].in_flight == 0
