"""Models of similarity matrices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from app.api.schemas import EXAMPLE_SOURCE, EXAMPLE_TOOK_MS, RequestModel, Side, SourceModel, TookMs

MAX_INPUTS = 256
MAX_CELLS = 10_000

Sides = Annotated[list[Side], Field(min_length=1, max_length=MAX_INPUTS)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Kinds = list[Literal["image", "text"]]
WHAT_PROBABILITY = "Null where the encoder is not calibrated for this kind of pair."


class MatrixRequest(RequestModel):
    """Two lists of inputs to compare, each with each."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"a": [{"id": "chelsea.png"}, {"id": "coffee.png"}], "b": [{"text": "a cat"}]}]}
    )

    a: Sides = Field(description="The inputs of the rows.")
    b: Sides | None = Field(default=None, description="The inputs of the columns; those of the rows by default.")

    @model_validator(mode="after")
    def _within_limits(self) -> MatrixRequest:
        check_size(len(self.a), len(self.a) if self.b is None else len(self.b))
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
        description="Calibrated probability that the two belong together, if half of all pairs do. " + WHAT_PROBABILITY
    )
    kinds: tuple[Kinds, Kinds] = Field(description="Kinds of `a` and `b`. An item of the collection is an image.")
    truncated_tokens: tuple[list[int], list[int]] = Field(
        description="Number of tokens at the end of each text that the encoder did not read; 0 for images."
    )
    took_ms: TookMs = Field(description="Milliseconds by stage.")


def check_size(rows: int, columns: int) -> None:
    """Raise ValueError for more pairs than a request may have."""
    if rows * columns > MAX_CELLS:
        raise ValueError(f"{rows} by {columns} are {rows * columns:,} pairs; send at most {MAX_CELLS:,}")
