"""Requests for a search: a body of JSON or a form, and options in the query string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from app.api.forms import FORM, read_form
from app.api.parameters import SEARCH_OPTIONS
from app.api.request_bodies import body_error, is_json, media_type, read_json
from app.api.schemas import Search
from app.errors import MediaTypeUnsupported, RequestError

SearchModel = TypeVar("SearchModel", bound=Search)


async def read_search(request: Request, model: type[SearchModel]) -> SearchModel:
    """Return a search from a body of JSON or a form, with the options of the query string.

    Raises:
        MediaTypeUnsupported: the body is neither.
        JsonInvalid, FormInvalid: the body can't be parsed.
        InvalidLimit, FilterInvalid, RequestError: the request does not fit the model, or gives an option twice.
    """
    kind = media_type(request)
    if kind == FORM:
        form = await read_form(request, texts=list(model.model_fields))
        return with_query(request, search_of_texts(model, form.texts))
    if not is_json(kind):
        raise MediaTypeUnsupported(f"Content-Type is {kind or 'missing'}; send application/json or {FORM}")
    return with_query(request, await read_json(request, model))


def search_of_texts(model: type[SearchModel], texts: Mapping[str, str]) -> SearchModel:
    """Return a search from texts by name; raises as `read_search` does."""
    values: dict[str, Any] = {name: _parse(name, text) for name, text in texts.items()}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise body_error(error, model) from error


def with_query(request: Request, search: SearchModel) -> SearchModel:
    """Return the search with the options of the request's query string.

    Raises:
        RequestError: the body has one of the options, too.
        InvalidLimit, FilterInvalid, RequestError: an option is invalid.
    """
    texts = request.query_params
    if not texts:
        return search
    for name in texts:
        if name in search.model_fields_set:
            raise RequestError(f"{name} is in the query string and in the body; give it once")
    return search.model_copy(update={name: _parse(name, text) for name, text in texts.items()})


def _parse(name: str, text: str) -> Any:
    return SEARCH_OPTIONS[name].parse(text) if name in SEARCH_OPTIONS else text
