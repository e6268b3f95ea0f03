"""Models of similarity matrices and of classification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas import EXAMPLE_SOURCE, EXAMPLE_TOOK_MS, RequestModel, Side, SourceModel, TookMs

MAX_INPUTS = 256
MAX_CELLS = 10_000
MAX_PROMPTS = 2_000
PLACEHOLDER = "{}"

Sides = Annotated[list[Side], Field(min_length=1, max_length=MAX_INPUTS)]
Label = Annotated[str, Field(min_length=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Kinds = list[Literal["image", "text"]]
_WHAT_PROBABILITY = "Null where the encoder is not calibrated for this kind of pair."


class MatrixRequest(RequestModel):
    """Two lists of inputs to compare, each with each."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"a": [{"id": "chelsea.png"}, {"id": "coffee.png"}], "b": [{"text": "a cat"}]}]}
    )

    a: Sides = Field(description="The inputs of the rows.")
    b: Sides | None = Field(default=None, description="The inputs of the columns; those of the rows by default.")

    @model_validator(mode="after")
    def _within_limits(self) -> MatrixRequest:
        _check_size(len(self.a), len(self.a) if self.b is None else len(self.b))
        if len(self.a) + len(self.b or ()) > MAX_INPUTS:
            raise ValueError(f"{len(self.a) + len(self.b or ())} inputs; send at most {MAX_INPUTS}")
        return self


class MatrixResponse(SourceModel):
    """How similar each input of `a` is to each of `b`; row i and column j belong to `a[i]` and `b[j]`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "cosine": [[0.347149], [0.127461]],
                    "probability": [[0.8728], [0.0312]],
                    "kinds": [["image", "image"], ["text"]],
                    "truncated_tokens": [[0, 0], [0]],
                    "took_ms": EXAMPLE_TOOK_MS,
                    **EXAMPLE_SOURCE,
                }
            ]
        }
    )

    cosine: list[list[Cosine]] = Field(description="Cosine similarities.")
    probability: list[list[Probability | None]] = Field(
        description="Calibrated probability that the two belong together, if half of all pairs do. " + _WHAT_PROBABILITY
    )
    kinds: tuple[Kinds, Kinds] = Field(description="Kinds of `a` and `b`. An item of the collection is an image.")
    truncated_tokens: tuple[list[int], list[int]] = Field(
        description="Number of tokens at the end of each text that the encoder did not read; 0 for images."
    )
    took_ms: TookMs = Field(description="Milliseconds by stage.")


class ClassifyRequest(RequestModel):
    """Images, and the labels to choose from."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": [{"id": "chelsea.png"}], "labels": ["cat", "dog", "cup of coffee"]}]}
    )

    inputs: Sides = Field(description="Images: files as base64, URLs or items of the collection.")
    labels: list[Label] = Field(min_length=1, max_length=1_000, description="Labels, all different.")
    template: str | Annotated[list[str], Field(min_length=1, max_length=100)] = Field(
        default=PLACEHOLDER,
        description="Text around a label, such as `a photo of a {}.`, or several, whose embeddings are averaged.",
    )

    @property
    def templates(self) -> list[str]:
        """The templates as a list."""
        return [self.template] if isinstance(self.template, str) else self.template

    @property
    def prompts(self) -> list[str]:
        """The texts of all labels: for each label one for each template."""
        return [template.replace(PLACEHOLDER, label) for label in self.labels for template in self.templates]

    @model_validator(mode="after")
    def _usable(self) -> ClassifyRequest:
        _check_size(len(self.inputs), len(self.labels))
        for position, each in enumerate(self.inputs):
            if each.text is not None:
                raise ValueError(f"inputs.{position} is a text; only images can be classified")
        if len(set(self.labels)) < len(self.labels):
            repeated = next(label for label in self.labels if self.labels.count(label) > 1)
            raise ValueError(f"the label {repeated!r} is given more than once; give it once")
        for template in self.templates:
            if PLACEHOLDER not in template:
                raise ValueError(f"the template {template!r} has no {PLACEHOLDER}, which stands for the label")
        if len(self.labels) * len(self.templates) > MAX_PROMPTS:
            raise ValueError(
                f"{len(self.labels)} labels in {len(self.templates)} templates; "
                f"send at most {MAX_PROMPTS:,} texts in all"
            )
        return self


class Prediction(BaseModel):
    """How well a label describes an image."""

    label: str = Field(description="The label.")
    cosine: Cosine = Field(description="Cosine similarity of the label and the image.")
    softmax: Probability = Field(
        description="The label's share among all labels: the softmax of cosine / temperature. Shares add to 1."
    )
    probability: Probability | None = Field(
        description="Calibrated probability that the label describes the image, whatever the other labels are, if half "
        "of all pairs belong together. " + _WHAT_PROBABILITY
    )


class Classified(BaseModel):
    """The labels of one image."""

    predictions: list[Prediction] = Field(description="All labels, the best first.")


class ClassifyResponse(SourceModel):
    """The labels of each image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "results": [
                        {
                            "predictions": [
                                {"label": "cat", "cosine": 0.347149, "softmax": 0.9978, "probability": 0.8728},
                                {"label": "dog", "cosine": 0.163072, "softmax": 0.0022, "probability": 0.0716},
                            ]
                        }
                    ],
                    "temperature": 0.03,
                    "took_ms": EXAMPLE_TOOK_MS,
                    **EXAMPLE_SOURCE,
                }
            ]
        }
    )

    results: list[Classified] = Field(description="One for each input, in order.")
    temperature: float = Field(gt=0, description="What the cosines are divided by before the softmax.")
    took_ms: TookMs = Field(description="Milliseconds by stage.")


def _check_size(rows: int, columns: int) -> None:
    if rows * columns > MAX_CELLS:
        raise ValueError(f"{rows} by {columns} are {rows * columns:,} pairs; send at most {MAX_CELLS:,}")
