"""The part of a routing that a bundle needs, as JSON, so that an interrupted export can go on from it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from lraee.bundle.strict_json import decode, encode
from lraee_exporters.graphs.exit import ExitWeights, HeadInput
from lraee_toolchain.early_exit.routing import Routing
from lraee_toolchain.early_exit.threshold_search import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedExit:
    """One exit without its weights, which are in its ONNX part."""

    block: int
    reads: HeadInput
    temperature: float
    gate_weights: tuple[float, float, float]
    gate_bias: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPoint:
    """Thresholds in the order of the exits; None closes an exit."""

    thresholds: tuple[float | None, ...]
    accuracy: float
    full_accuracy: float
    """At full depth on the same images."""
    saved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRouting:
    """``routing.json``."""

    exits: tuple[SavedExit, ...]
    front: tuple[SavedPoint, ...]
    points: dict[str, SavedPoint]
    full_accuracy: float


def weights_of_exits(routing: Routing, logit_bias: float | None) -> dict[int, ExitWeights]:
    """What the ONNX part of each exit is built from, by block."""
    return {
        trained.block: ExitWeights(
            reads=trained.head.reads,
            norm=trained.head.norm,
            fc1=trained.head.fc1,
            fc2=trained.head.fc2,
            logit_bias=logit_bias,
            temperature=trained.temperature,
            gate_weights=trained.gate.weights,
            gate_bias=trained.gate.bias,
        )
        for trained in routing.exits
    }


def save_routing(routing: Routing, path: Path) -> None:
    """Write ``routing.json``."""
    saved = SavedRouting(
        exits=tuple(
            SavedExit(
                block=trained.block,
                reads=trained.head.reads,
                temperature=trained.temperature,
                gate_weights=trained.gate.weights,
                gate_bias=trained.gate.bias,
                accuracy=trained.accuracy,
            )
            for trained in routing.exits
        ),
        front=tuple(_saved_point(point) for point in routing.front),
        points={name: _saved_point(point) for name, point in routing.points.items()},
        full_accuracy=routing.full_accuracy,
    )
    path.write_text(json.dumps(encode(saved), indent=1))


def load_routing(path: Path) -> SavedRouting:
    """Read ``routing.json``."""
    return decode(SavedRouting, json.loads(path.read_text()), path.name)


def _saved_point(point: Point) -> SavedPoint:
    thresholds = tuple(value if math.isfinite(value) else None for value in point.thresholds)
    full = point.accuracy - point.difference
    return SavedPoint(thresholds=thresholds, accuracy=point.accuracy, full_accuracy=full, saved=point.saved)
