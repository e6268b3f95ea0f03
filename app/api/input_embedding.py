"""Many inputs of one request -> their embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.admission import RequestKind
from app.api.image_inputs import read_image
from app.api.request_admission import Admission
from app.api.request_bodies import Base64Image, ImageUrl
from app.errors import InputError, is_client_error
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import ItemQuery, Query, QueryPipeline, TextQuery, slowest
from lookalike.search import Embedding
from lookalike.stopwatch import Stopwatch

Input = Query | Base64Image | ImageUrl

_WINDOW = 64
"""Inputs of one request in progress at a time: enough to fill batches, and few enough that other queries get a turn."""


@dataclass(frozen=True, slots=True)
class EmbeddedInputs:
    """The embeddings of a request's inputs.

    Attributes:
        embeddings: one for each input, in order.
        took_ms: milliseconds of each stage, of the input that spent most in it.
    """

    embeddings: list[Embedding]
    took_ms: dict[str, float]


async def embed_inputs(
    inputs: Sequence[Input],
    names: Sequence[str],
    pipeline: QueryPipeline,
    fetcher: ImageFetcher,
    admission: Admission,
) -> EmbeddedInputs:
    """Embed inputs concurrently, some at a time; the deadline starts again whenever one is done.

    Args:
        inputs: images, texts and items.
        names: the name of each input for errors, such as `input.3`.
        pipeline: of the collection.
        fetcher: fetches images by URL.
        admission: of the request; each input counts as a query.

    Raises:
        InputError: one of the inputs has an error; the others are dropped.
        Overloaded: a query of these kinds would wait too long.
    """
    admission.admit_inputs([_kind(each) for each in inputs])
    embeddings: list[Embedding | None] = [None] * len(inputs)
    stopwatches = [Stopwatch() for _ in inputs]
    positions = iter(range(len(inputs)))

    async def embed_next() -> None:
        for position in positions:
            slot = admission.input_slot(_kind(inputs[position]))
            client_error = False
            try:
                read = inputs[position]
                if isinstance(read, (Base64Image, ImageUrl)):
                    read = await read_image(read, pipeline, fetcher, slot)
                embeddings[position] = await pipeline.embed(read, stopwatches[position])
            except Exception as error:
                client_error = is_client_error(error)
                raise InputError(names[position], error) from error
            finally:
                slot.finish(completed=embeddings[position] is not None, client_error=client_error)
            pipeline.count(stopwatches[position])
            admission.restart_deadline()

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(_WINDOW, len(inputs))):
                tasks.create_task(embed_next())
    except* InputError as group:
        raise _first(group) from None
    return EmbeddedInputs([each for each in embeddings if each is not None], slowest(stopwatches))


def _kind(each: Input) -> RequestKind:
    if isinstance(each, TextQuery):
        return "text"
    return "item" if isinstance(each, ItemQuery) else "image"


def _first(group: BaseExceptionGroup[InputError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
