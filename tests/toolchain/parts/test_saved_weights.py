"""Weights that are read again build the same graphs, byte for byte."""

from pathlib import Path

import numpy as np
import pytest

from lraee_exporters.graphs.block import BlockForm, build_block, float_block, quantize_block
from lraee_exporters.graphs.tail import build_tail, float_tail
from lraee_exporters.int8.linear import ActivationRange, QuantizedLinear
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.tower import Tower
from lraee_toolchain.parts.saved_weights import TowerWeights, load_weights, save_weights

RANGE = ActivationRange(minimum=-3.0, maximum=2.5)


@pytest.fixture(scope="module")
def tower() -> Tower:
    """The reference."""
    return load_model("reference").tower


@pytest.mark.parametrize("quantized", [False, True])
def test_blocks_and_tail_come_back_as_they_were(tower: Tower, quantized: bool, tmp_path: Path) -> None:
    """In float and in INT8, merged or not; arrays keep their types."""
    ranges = dict.fromkeys(("norm_1", "attention", "norm_2", "activation"), RANGE)
    blocks = [
        quantize_block(block, tower.activation, ranges) if quantized else float_block(block, tower.activation)
        for block in tower.blocks
    ]
    save_weights(TowerWeights(blocks=blocks, tail=float_tail(tower)), tmp_path)
    found = load_weights(tmp_path)
    assert len(found.blocks) == tower.depth
    for form in (BlockForm(token_count=50), BlockForm(token_count=40, merged=3, sized=True)):
        for before, after in zip(blocks, found.blocks, strict=True):
            (graph, file), (again, file_again) = (build_block(block, form, number=1) for block in (before, after))
            assert file.chunks == file_again.chunks
            assert [node.SerializeToString() for node in graph.nodes] == [
                node.SerializeToString() for node in again.nodes
            ]
            assert [one.SerializeToString() for one in graph.initializers] == [
                one.SerializeToString() for one in again.initializers
            ]
    layer = found.blocks[0].query
    assert isinstance(layer, QuantizedLinear) == quantized
    assert layer.weight.dtype == (np.int8 if quantized else np.float32)
    shape = {"width": tower.width, "embed_dim": tower.embed_dim, "token_count": tower.tokens}
    (_, before_file), (_, after_file) = (build_tail(tail, **shape) for tail in (float_tail(tower), found.tail))
    assert before_file.chunks == after_file.chunks
