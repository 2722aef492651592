"""INT8 arithmetic: zero is exact, values within a range are off by half a level at most, channels keep their bias."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto

from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import add_linear
from lraee_exporters.int8.linear import (
    ALL_LEVELS,
    SMALL_INPUTS,
    SMALL_WEIGHTS,
    ActivationRange,
    Levels,
    QuantizedLinear,
    quantize_bias,
    quantize_linear,
    quantize_weight,
)
from lraee_exporters.tower import Linear

Array = npt.NDArray[Any]

real = st.floats(-1e4, 1e4, width=32)
weights = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.floats(-4, 4, width=32)
)


def levels_of(value: Array, chosen: ActivationRange) -> Array:
    """The uint8 level of each value, as QuantizeLinear gives it."""
    return np.clip(np.rint(value / chosen.scale) + chosen.zero_point, 0, 255)


@given(first=real, second=real)
def test_zero_is_exact_in_every_range(first: float, second: float) -> None:
    """Padding, dead channels and dropped values must stay zero; also when the range itself does not contain it."""
    chosen = ActivationRange(minimum=min(first, second), maximum=max(first, second))
    assert 0 <= chosen.zero_point <= 255
    assert levels_of(np.zeros(1), chosen)[0] == chosen.zero_point
    assert chosen.scale > 0


@given(first=real, second=real, share=st.floats(0, 1))
def test_a_value_within_the_range_is_off_by_at_most_half_a_level(first: float, second: float, share: float) -> None:
    """Also at both ends; the millionth allows for the scale's own rounding to float32."""
    low, high = min(first, second), max(first, second)
    chosen = ActivationRange(minimum=low, maximum=high)
    value = low + share * (high - low)
    back = (levels_of(np.array([value]), chosen)[0] - chosen.zero_point) * chosen.scale
    assert abs(back - value) <= 0.5 * chosen.scale + 2e-6 * max(abs(low), abs(high)) + 1e-30


@given(low=st.floats(0.5, 1e3, width=32), length=st.floats(0, 1e3, width=32))
def test_a_range_on_one_side_of_zero_is_widened_to_it(low: float, length: float) -> None:
    """All positive begins at level 0, all negative ends at level 255, and the far end keeps its level."""
    above = ActivationRange(minimum=low, maximum=low + length)
    below = ActivationRange(minimum=-low - length, maximum=-low)
    assert (above.zero_point, below.zero_point) == (0, 255)
    assert levels_of(np.array([low + length]), above)[0] == 255
    assert levels_of(np.array([-low - length]), below)[0] == 0


def test_a_constant_tensor_keeps_its_value() -> None:
    """One value takes the whole range; a tensor of zeros stays zero."""
    for value in (3.7, -3.7):
        chosen = ActivationRange(minimum=value, maximum=value)
        back = (levels_of(np.array([value]), chosen)[0] - chosen.zero_point) * chosen.scale
        assert back == pytest.approx(value, rel=1e-6)
    assert ActivationRange(minimum=0.0, maximum=0.0).zero_point == 0


@given(weight=weights)
def test_a_weight_is_off_by_at_most_half_a_level_of_its_own_channel(weight: Array) -> None:
    """A large channel does not coarsen a small one; levels are symmetric, so -128 is never used."""
    levels, scale = quantize_weight(weight)
    assert levels.dtype == np.int8
    assert levels.flags.c_contiguous
    assert levels.min() >= -127
    assert (scale > 0).all()
    error = np.abs(levels.T * scale[:, None].astype(np.float64) - weight)
    assert (error <= scale[:, None] * 0.5 * (1 + 1e-5)).all()


@given(weight=weights, seed=st.integers(0, 99))
def test_a_layer_in_int8_is_bounded_by_the_rounding_of_its_three_operands(weight: Array, seed: int) -> None:
    """|y - y8| <= |x| dw + |w8| dx + db, summed over the inputs: the bound holds for every weight and input."""
    generator = np.random.default_rng(seed)
    size_out, size_in = weight.shape
    layer = Linear(weight=weight, bias=generator.normal(size=size_out).astype(np.float32))
    x = generator.uniform(-2, 3, (20, size_in))
    chosen = ActivationRange(minimum=float(x.min()), maximum=float(x.max()))
    int8 = quantize_linear(layer, chosen)
    assert int8.bias is not None
    units = int8.input_scale * int8.weight_scale.astype(np.float64)
    got = ((levels_of(x, chosen) - chosen.zero_point) @ int8.weight.astype(np.float64) + int8.bias) * units
    weight_error = np.abs(int8.dequantized() - weight).sum(axis=1) * np.abs(x).max()
    input_error = np.abs(int8.dequantized()).sum(axis=1) * 0.5 * chosen.scale
    bound = weight_error + input_error + 0.5 * units
    assert (np.abs(got - (x @ weight.T + layer.bias)) <= bound * 1.001 + 1e-6).all()


@pytest.mark.parametrize("weight_row", [0.0, 1e-20, 1e-9], ids=["zero", "denormal-small", "tiny"])
@pytest.mark.parametrize(
    "activation", [ActivationRange(minimum=-2.0, maximum=3.0), ActivationRange(minimum=0.0, maximum=0.0)]
)
def test_a_channel_without_weights_still_gives_its_bias(
    weight_row: float, activation: ActivationRange, run_part: Callable[..., dict[str, Any]]
) -> None:
    """A pruned row has no scale and 32 bits of bias; its bias must not be cut off by that.

    The same for an input that was zero in all of calibration: the layer then is its bias.
    """
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(4, 64)).astype(np.float32)
    weight[1] = weight_row
    layer = Linear(weight=weight, bias=np.array([0.1, 0.5, -0.2, 3.0], np.float32))
    int8 = quantize_linear(layer, activation)
    x = np.zeros((2, 64), np.float32)
    np.testing.assert_allclose(run_linear(int8, x, run_part), np.tile(layer.bias, (2, 1)), rtol=1e-3, atol=2e-4)


@given(bias=st.floats(-(2.0**100), 2.0**100, width=32))
def test_a_bias_never_wraps_around(bias: float) -> None:
    """Out of 32 bits it stops at the largest level of its sign."""
    level = int(quantize_bias(np.array([bias], np.float32), 0.02, np.array([1e-3], np.float32))[0])
    assert level == pytest.approx(np.clip(bias / 2e-5, -(2**31 - 1), 2**31 - 1), rel=1e-6, abs=0.51)


@pytest.mark.parametrize("size_in", [64, 3072])
@pytest.mark.parametrize("levels", [ALL_LEVELS, SMALL_WEIGHTS, SMALL_INPUTS], ids=["all", "weights", "inputs"])
def test_the_kernel_multiplies_these_integers(
    levels: Levels, size_in: int, tmp_path: Path, run_part: Callable[..., dict[str, Any]]
) -> None:
    """QGemm against int64 arithmetic, every input at its lowest or highest level or beyond, and so every weight.

    Nothing may saturate: with all levels in the project's sessions, with fewer also in a session with default options.
    """
    weight = np.random.default_rng(1).choice([-1.0, 1.0], (16, size_in)).astype(np.float32)
    weight[0], weight[1] = 1.0, -1.0
    layer = Linear(weight=weight, bias=np.linspace(-5, 5, 16, dtype=np.float32))
    int8 = quantize_linear(layer, ActivationRange(minimum=-1.0, maximum=4.0, levels=levels))
    assert int8.saturates is (levels == ALL_LEVELS)
    x = np.random.default_rng(2).choice([-1.0, 4.0, 40.0], (8, size_in)).astype(np.float32)
    x[0], x[1] = 4.0, -1.0
    rounded = np.clip(np.rint(x / np.float32(int8.input_scale)) + int8.input_zero_point, 0, levels.inputs)
    sums = (rounded.astype(np.int64) - int8.input_zero_point) @ int8.weight.astype(np.int64) + int8.bias
    expected = sums * (int8.input_scale * int8.weight_scale.astype(np.float64))
    np.testing.assert_allclose(run_linear(int8, x, run_part), expected, rtol=1e-5, atol=1e-4)
    if levels != ALL_LEVELS:
        plain = ort.InferenceSession(tmp_path / "layer.onnx").run(None, {"x": x})[0]
        np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-4)


def run_linear(layer: QuantizedLinear, x: Array, run_part: Callable[..., dict[str, Any]]) -> Array:
    """Build the layer as its own part."""
    graph, file = GraphBuilder("layer"), WeightFile("layer.data")
    size_in, size_out = layer.shape
    value = graph.input("x", TensorProto.FLOAT, ["rows", size_in])
    graph.output(add_linear(graph, file, value, layer, "fc", rows=1), "y", TensorProto.FLOAT, ["rows", size_out])
    return np.asarray(run_part((graph, file), x=x)["y"])
