"""Keeps the weights that a tower's parts were built from, so that other graphs of the same weights are built later.

The arrays lie in a safetensors file, everything else as JSON in its header.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lraee_exporters.graphs.block import BlockWeights
from lraee_exporters.graphs.pooling.attention_pool import PoolWeights
from lraee_exporters.graphs.tail import TailWeights
from lraee_exporters.int8.linear import QuantizedLinear
from lraee_exporters.tower import LayerNorm, Linear

NAME = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TowerWeights:
    """What the parts of a tower are built from, but for the stem."""

    blocks: Sequence[BlockWeights]
    tail: TailWeights


KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (TowerWeights, BlockWeights, TailWeights, PoolWeights, QuantizedLinear, Linear, LayerNorm)
}
"""What a file may hold, by its name there."""


def save_weights(weights: TowerWeights, folder: Path) -> None:
    """Write the weights into the folder of the parts that were built from them."""
    arrays: dict[str, np.ndarray] = {}
    described = _described(weights, "tower", arrays)
    save_file(arrays, folder / NAME, {"tower": json.dumps(described)})


def load_weights(folder: Path) -> TowerWeights:
    """Read what `save_weights` wrote."""
    path = folder / NAME
    with safe_open(path, "numpy") as file:
        described = json.loads(file.metadata()["tower"])
    weights = _restored(described, load_file(path))
    assert isinstance(weights, TowerWeights)
    return weights


def _described(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Describe a value in JSON; its arrays are collected by name."""
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)
        return {"array": name}
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        return {"kind": type(value).__name__} | {
            field: _described(getattr(value, field), f"{name}.{field}", arrays) for field in fields
        }
    if isinstance(value, list | tuple):
        return [_described(one, f"{name}.{place}", arrays) for place, one in enumerate(value, start=1)]
    return value


def _restored(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Build a value from its description."""
    if isinstance(value, list):
        return [_restored(one, arrays) for one in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    kind = KINDS[value["kind"]]
    return kind(**{name: _restored(one, arrays) for name, one in value.items() if name != "kind"})
