"""Keep float heads that read all tokens on disk, by the block that they stand after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from lraee_exporters.graphs.pooling.token_pool import TokenPool
from lraee_exporters.tower import LayerNorm, Linear
from lraee_toolchain.early_exit.heads import EPSILON
from lraee_toolchain.early_exit.task import FloatArray, Head

NAME = "exit_heads.safetensors"

NAMES = ("queries", "norm.weight", "norm.bias", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
"""Arrays of a head."""


def save_heads(heads: Mapping[int, Head], folder: Path) -> None:
    """Write float attention heads by their block, as one file."""
    found = {f"{block}.{name}": array for block, head in heads.items() for name, array in arrays_of(head).items()}
    save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, folder / NAME)


def load_heads(folder: Path) -> dict[int, Head]:
    """Read what `save_heads` wrote."""
    arrays = load_file(folder / NAME)
    blocks = sorted({int(name.split(".")[0]) for name in arrays})
    return {block: head_of({name: arrays[f"{block}.{name}"] for name in NAMES}) for block in blocks}


def arrays_of(head: Head) -> dict[str, FloatArray]:
    """Give the arrays of a float attention head, called as in `NAMES`."""
    assert head.pool is not None
    assert isinstance(head.fc1, Linear)
    assert isinstance(head.fc2, Linear)
    found = {"queries": head.pool.queries, "norm.weight": head.norm.weight, "norm.bias": head.norm.bias}
    for name, layer in (("fc1", head.fc1), ("fc2", head.fc2)):
        found |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    return found


def head_of(arrays: Mapping[str, FloatArray]) -> Head:
    """Build a float attention head from its arrays, called as in `NAMES`."""
    return Head(
        reads="attention",
        norm=LayerNorm(weight=arrays["norm.weight"], bias=arrays["norm.bias"], epsilon=EPSILON),
        fc1=Linear(weight=arrays["fc1.weight"], bias=arrays["fc1.bias"]),
        fc2=Linear(weight=arrays["fc2.weight"], bias=arrays["fc2.bias"]),
        pool=TokenPool(queries=arrays["queries"]),
    )
