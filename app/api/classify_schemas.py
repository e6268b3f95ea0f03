"""Models of classification."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.matrix_schemas import WHAT_PROBABILITY, Cosine, Probability, Sides, check_size
from app.api.schemas import EXAMPLE_SOURCE, EXAMPLE_TOOK_MS, RequestModel, SourceModel, TookMs
from lookalike.messages import quoted

MAX_PROMPTS = 2_000
MAX_CHARACTERS = 1_000
"""Of a label and of a template: together they are the text of a prompt."""
PLACEHOLDER = "{}"

Label = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
Template = Annotated[str, Field(max_length=MAX_CHARACTERS)]


class ClassifyRequest(RequestModel):
    """Images, and the labels to choose from."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": [{"id": "chelsea.png"}], "labels": ["cat", "dog", "cup of coffee"]}]}
    )

    inputs: Sides = Field(description="Images: files as base64, URLs or items of the collection.")
    labels: list[Label] = Field(min_length=1, max_length=1_000, description="Labels, all different.")
    template: Template | Annotated[list[Template], Field(min_length=1, max_length=100)] = Field(
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
        check_size(len(self.inputs), len(self.labels))
        for position, each in enumerate(self.inputs):
            if each.text is not None:
                raise ValueError(f"inputs.{position} is a text; only images can be classified")
        if len(set(self.labels)) < len(self.labels):
            repeated = next(label for label in self.labels if self.labels.count(label) > 1)
            raise ValueError(f"the label {quoted(repeated)} is given more than once; give it once")
        for template in self.templates:
            if template.count(PLACEHOLDER) != 1:
                raise ValueError(f"the template {quoted(template)} must have {PLACEHOLDER} once, in the label's place")
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
        "of all pairs belong together. " + WHAT_PROBABILITY
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
