"""Describes the answers of a service: what `openapi.json` says of them, and how they are written."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lraee.prediction import Prediction


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Error(_Schema):
    """Says why there is no answer."""

    status: int = Field(description="Status of the response, or the one that the image alone would have had.")
    message: str = Field(description="What was met, what was wanted, and what to do next.")


class ErrorBody(_Schema):
    """Is the body of every response that is no answer."""

    error: Error


class Scored(_Schema):
    """Names a label and how likely it is."""

    label: str
    score: float = Field(description="Probability, 0 to 1.")


class Left(_Schema):
    """Tells where an image left the tower, and what that cost."""

    exit_block: int = Field(description="Block after which it left, counted from 1.")
    blocks: int = Field(description="Depth of the tower.")
    early: bool = Field(description="Whether it left through an exit.")
    gate: float | None = Field(description="Value of the gate where it left, 0 to 1; null at full depth.")
    flops: int = Field(description="FLOPs of what ran for it.")
    full_flops: int = Field(description="FLOPs of an image at full depth.")


class Answer(Left):
    """Is the answer to `classify` for one image."""

    label: str = Field(description="The most likely label.")
    score: float = Field(description="Its probability, 0 to 1.")
    top: list[Scored] = Field(description="The most likely labels, best first.")


class Embedding(Left):
    """Is the answer to `embed` for one image."""

    embedding: list[float] = Field(description="Numbers of unit length together.")


class NamedAnswer(_Schema):
    """Is what one image of a form gets: an answer, or an error of its own."""

    position: int = Field(description="Place of the image in the form, counted from 0.")
    name: str | None = Field(description="Name of the file as the client gave it.")
    answer: Answer | None = None
    error: Error | None = None


class NamedEmbedding(_Schema):
    """Is what one image of a form gets: an embedding, or an error of its own."""

    position: int = Field(description="Place of the image in the form, counted from 0.")
    name: str | None = Field(description="Name of the file as the client gave it.")
    answer: Embedding | None = None
    error: Error | None = None


class Answers(_Schema):
    """Is the answer to a form with images, in their order."""

    results: list[NamedAnswer]


class Embeddings(_Schema):
    """Is the answer to a form with images, in their order."""

    results: list[NamedEmbedding]


class Limits(_Schema):
    """Tells how much the service accepts."""

    body_bytes: int
    pixels: int = Field(description="Of one image.")
    images: int = Field(description="Of one request.")
    labels: int = Field(description="Of one request.")
    queue: int = Field(description="Images that wait.")
    time_limit_s: float


class ModelInfo(_Schema):
    """Describes the bundle that answers."""

    bundle: str = Field(description="Name of its folder.")
    manifest_sha256: str
    model: str
    blocks: int
    exits: list[int] = Field(description="Blocks with an exit after them.")
    operating_points: list[str]
    default_point: str | None
    schedules: list[str] = Field(description="Merging schedules.")
    labels: list[str]
    probabilities: str
    takes_labels: bool = Field(description="Whether a request may bring labels of its own.")
    embed_dim: int
    image_size: int
    full_flops: int
    version: str = Field(description="Of lraee.")
    limits: Limits


class Health(_Schema):
    """Tells how the service is."""

    status: Literal["ok", "ready", "starting", "stopping", "failed"]


def left_of(prediction: Prediction, blocks: int, full_flops: int) -> dict[str, Any]:
    """Give the fields of `Left`."""
    return {
        "exit_block": prediction.exit_block,
        "blocks": blocks,
        "early": prediction.early,
        "gate": prediction.gate,
        "flops": prediction.flops,
        "full_flops": full_flops,
    }
