"""Models of OpenAI's API: requests for embeddings, models, and errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, StrictInt

from app.api.request_bodies import Base64Image, ImageUrl
from app.api.schemas import Problem, RequestModel
from app.execution.pipeline import TextQuery

MAX_INPUTS = 2048
Input = TextQuery | Base64Image | ImageUrl

_ENCODING = "`float` for lists of numbers; `base64` for little-endian float32."
_IGNORED = "Accepted and ignored."
_OBJECTS = [
    {
        "type": "object",
        "properties": {name: {"type": "string"}},
        "required": [name],
        "additionalProperties": False,
    }
    for name in ("text", "image")
]
_ELEMENT = [{"type": "string"}, *_OBJECTS]
_INPUT_FORMS = [*_ELEMENT, {"type": "array", "items": {"anyOf": _ELEMENT}, "minItems": 1, "maxItems": MAX_INPUTS}]


def _as_list(value: object) -> object:
    """Return the inputs of a request as a list."""
    if isinstance(value, str | dict):
        return [value]
    if not isinstance(value, list):
        raise ValueError("send a text, an object with `text` or `image`, or a list of them")
    if not value:
        raise ValueError(f"the list is empty; send 1 to {MAX_INPUTS:,} inputs")
    if any(isinstance(each, int | list) for each in value):
        raise ValueError(
            "token arrays are not supported, since each encoder has its own tokens; send texts "
            "(in langchain-openai: check_embedding_ctx_length=False)"
        )
    if len(value) > MAX_INPUTS:
        raise ValueError(f"{len(value):,} inputs; send at most {MAX_INPUTS:,}")
    return value


def _as_input(value: object) -> str | Input:
    """Return a string as it is, since `modality` says what it is, and the input that an object holds."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((name, content),) = value.items()
        if name in ("text", "image") and isinstance(content, str):
            return TextQuery(content) if name == "text" else _image(content)
    raise ValueError('send a text, {"text": a text}, or {"image": a URL, base64 or a data URI}')


def _image(text: str) -> Base64Image | ImageUrl:
    return ImageUrl(text) if text[:8].lower().startswith(("http://", "https://")) else Base64Image(text)


def _describe_input(schema: dict[str, Any]) -> None:
    """Write the forms of the inputs into their schema."""
    schema.pop("items", None)
    schema.pop("type", None)
    schema["anyOf"] = _INPUT_FORMS


class EmbeddingsRequest(RequestModel):
    """Texts and images to embed, as OpenAI's API takes them; also Jina's objects and infinity's `modality`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input": ["a cat", "a cup of coffee"], "encoding_format": "base64"},
                {"input": [{"text": "a cat"}]},
            ]
        }
    )

    input: Annotated[list[Annotated[Any, PlainValidator(_as_input)]], BeforeValidator(_as_list)] = Field(
        description=(
            f"A text, an object with `text` or `image`, or a list of at most {MAX_INPUTS:,}. An image is base64, a "
            "data URI, or a URL. A string that begins `data:image/` is an image."
        ),
        json_schema_extra=_describe_input,
    )
    model: str | None = Field(
        default=None, description="Name of a collection or of its encoder; the default collection's if absent."
    )
    modality: Literal["text", "image"] | None = Field(
        default="text", description="What strings are: texts, or images as URL, base64 or data URI."
    )
    encoding_format: Literal["float", "base64"] | None = Field(default=None, description=_ENCODING)
    embedding_type: Literal["float", "base64"] | None = Field(
        default=None, description="The same as `encoding_format`, under the name of Jina's API."
    )
    dimensions: StrictInt | None = Field(default=None, description="Refused unless it is the encoder's.")
    user: Any = Field(default=None, description=_IGNORED)
    task: Any = Field(default=None, description=_IGNORED)
    late_chunking: Any = Field(default=None, description=_IGNORED)
    encoding_type: Any = Field(default=None, description=_IGNORED)
    normalized: Any = Field(default=None, description="Accepted and ignored: embeddings have unit norm.")
    truncate: Any = Field(default=None, description="Accepted and ignored: a text that is too long is truncated.")

    @property
    def inputs(self) -> list[Input]:
        """The texts and images."""
        return [self._read(each) if isinstance(each, str) else each for each in self.input]

    def _read(self, text: str) -> Input:
        is_image = self.modality == "image" or text.startswith("data:image/")
        return _image(text) if is_image else TextQuery(text)


class EmbeddingEntry(BaseModel):
    """The embedding of one input."""

    object: Literal["embedding"] = Field(description="Always `embedding`.")
    index: int = Field(description="Position of the input.")
    embedding: list[float] | str = Field(description="The unit vector: a list of numbers, or base64.")


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int = Field(description="Tokens of the texts that the encoder read; an image has none.")
    total_tokens: int = Field(description="The same.")


class EmbeddingsResponse(BaseModel):
    """The embeddings, in the order of the inputs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "list",
                    "model": "lite",
                    "data": [{"object": "embedding", "index": 0, "embedding": [0.0123456, -0.0456789]}],
                    "usage": {"prompt_tokens": 4, "total_tokens": 4},
                }
            ]
        }
    )

    object: Literal["list"] = Field(description="Always `list`.")
    model: str = Field(description="The model as the request names it; by default the encoder's name.")
    data: list[EmbeddingEntry] = Field(description="An embedding for each input.")
    usage: Usage = Field(description="Tokens of the texts.")


class ModelResponse(BaseModel):
    """A model: an encoder, or a collection, which stands for its encoder."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "lite",
                    "object": "model",
                    "created": 1767225600,
                    "owned_by": "lookalike",
                    "encoder": "lite",
                    "dimensions": 768,
                    "modalities": ["image", "text"],
                }
            ]
        }
    )

    id: str = Field(description="The name to send as `model`.")
    object: Literal["model"] = Field(description="Always `model`.")
    created: int = Field(description="When the collection's version was made, in Unix seconds; 0 if it is not open.")
    owned_by: str = Field(description="Always `lookalike`.")
    encoder: str | None = Field(description="The encoder's name; null while the collection is not open.")
    dimensions: int | None = Field(description="Width of the embeddings; null while the collection is not open.")
    modalities: list[Literal["image", "text"]] = Field(description="What can be embedded; empty while not open.")


class ModelsResponse(BaseModel):
    """The models of the service."""

    object: Literal["list"] = Field(description="Always `list`.")
    data: list[ModelResponse] = Field(description="Encoders, then collections.")


class OpenAIError(BaseModel):
    """An error as OpenAI's clients read it."""

    message: str = Field(description="The problem's `detail`.")
    type: str = Field(description="Kind of the error, such as `invalid_request_error`.")
    param: str | None = Field(description="The invalid field, such as `input.3`.")
    code: str = Field(description="The problem's `code`.")


class OpenAIProblem(Problem):
    """A problem document that also has OpenAI's `error`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:lookalike:error:unknown_model",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "unknown model 'clip'; the models are lite and my-collection",
                    "instance": "/v1/embeddings",
                    "code": "unknown_model",
                    "errors": [{"field": "model", "message": "unknown model 'clip'"}],
                    "error": {
                        "message": "unknown model 'clip'; the models are lite and my-collection",
                        "type": "invalid_request_error",
                        "param": "model",
                        "code": "unknown_model",
                    },
                }
            ]
        }
    )

    error: OpenAIError = Field(description="The same error as OpenAI's clients read it.")
