"""The floor graph: the tower's products and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lraee.bundle.folder import find_bundle
from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.bare_gemms import FLOOR_ROWS, build_floor, save_floor
from lraee_exporters.graphs.fused_operators import optimized_operators

REFERENCE = find_bundle("reference")

ONE_THREAD = SessionSettings(threads=1)


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The floor of the shipped bundle, written."""
    folder = tmp_path_factory.mktemp("floor")
    save_floor(build_floor(onnx.load(REFERENCE / "graph.onnx")), folder)
    return folder / "floor.onnx"


def test_the_floor_is_one_product_for_each_matrix_and_nothing_else(floor: Path) -> None:
    """Patches, six a block, the projection: 74 for twelve blocks, all fused."""
    assert optimized_operators(floor) == {"QGemm": 74}


def test_inputs_are_shared_by_layers_of_one_shape(floor: Path) -> None:
    """Quantized already, with a symbolic first axis that tells how many rows there are of one image."""
    inputs = make_session(floor, ONE_THREAD).get_inputs()
    assert {entry.type for entry in inputs} == {"tensor(uint8)"}
    assert [entry.shape for entry in inputs] == [
        [FLOOR_ROWS[0], 48],
        [FLOOR_ROWS[1], 128],
        [FLOOR_ROWS[1], 512],
        [FLOOR_ROWS[2], 128],
        [FLOOR_ROWS[2], 512],
    ]


def test_the_last_block_multiplies_the_rows_that_it_computes(floor: Path) -> None:
    """As in the chain, keys and values of all tokens are computed, and one row of the rest."""
    session = make_session(floor, ONE_THREAD)
    rows = {entry.name: entry.shape[0] for entry in session.get_outputs()}
    one = {name for name, count in rows.items() if count == FLOOR_ROWS[2]}
    assert one == {f"block_12/{layer}" for layer in ("query", "out", "fc1", "fc2")} | {"tail/projection"}


def test_products_keep_their_order_and_use_the_bundle_s_weights(floor: Path) -> None:
    """The second product of block 7 is what its int8 weights and its scales say, to float rounding."""
    session = make_session(floor, ONE_THREAD)
    names = [entry.name for entry in session.get_outputs()]
    layers = [f"block_07/{layer}" for layer in ("query", "key", "value", "out", "fc1", "fc2")]
    assert names[1 + 6 * 6 : 1 + 6 * 7] == layers
    assert (names[0], names[-1]) == ("stem/patches", "tail/projection")
    levels = {
        entry.name: np.random.default_rng(0).integers(0, 256, (3, entry.shape[1]), np.uint8)
        for entry in session.get_inputs()
    }
    (product,) = session.run(["block_07/key"], levels)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(floor).graph.initializer}
    x = levels["token_rows_128"].astype(np.float64) - weights["block_07/norm_1_input_zero_point"]
    y = x @ weights["block_07/key_weight"].astype(np.float64) + weights["block_07/key_bias"]
    np.testing.assert_allclose(product, y * weights["block_07/key_bias_scale"], rtol=1e-5, atol=1e-5)


def test_a_float_tower_has_a_float_floor(tmp_path: Path) -> None:
    """The same products, fed with float32."""
    save_floor(build_floor(onnx.load(REFERENCE.with_name("reference.baselines") / "fp32.onnx")), tmp_path)
    assert optimized_operators(tmp_path / "floor.onnx") == {"Gemm": 74}
