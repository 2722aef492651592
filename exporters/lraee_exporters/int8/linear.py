"""Quantizes a linear layer to INT8: int8 weights per output channel, uint8 activations per tensor, int32 bias.

The scheme is fixed by what ONNX Runtime's CPU kernels run fast (U8S8 with float output, `QGemm`):
activations asymmetric uint8, weights symmetric int8 with one scale per output channel.

On x86 without VNNI instructions ONNX Runtime's fast kernel adds two products of uint8 and int8 in 16 bits, which
saturate (`Levels`). With fewer levels of one of the two they cannot, and the fast kernel is exact.

Source of the arithmetic: Jacob et al., arXiv 1712.05877, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lraee.bundle.strict_json import OPTIONAL
from lraee_exporters.tower import Linear

LARGEST_BIAS = 2**30
"""Bias levels at most: half of int32, so that the sum of the GEMM still fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Says how finely inputs and weights of a layer are rounded."""

    inputs: int = 255
    """Highest level of an input; the lowest is 0."""
    weights: int = 127
    """Highest level of a weight; the lowest is its negative."""

    @property
    def saturate(self) -> bool:
        """Whether the sum of two products may leave the 16 bits that x86 without VNNI instructions has for it.

        >>> Levels().saturate, SMALL_WEIGHTS.saturate, SMALL_INPUTS.saturate
        (True, False, False)
        """
        return 2 * self.inputs * self.weights > 2**15 - 1


ALL_LEVELS = Levels()
"""All that 8 bits hold."""

SMALL_WEIGHTS = Levels(weights=64)
"""So that 255 * 64 * 2 fits into 16 bits."""

SMALL_INPUTS = Levels(inputs=127)
"""So that 127 * 127 * 2 does; larger levels are clipped in the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRange:
    """Describes the real interval that the levels of a quantized activation cover.

    >>> ActivationRange(minimum=-1.0, maximum=1.55).zero_point
    100
    """

    minimum: float
    maximum: float
    levels: Levels = field(default=ALL_LEVELS, metadata={OPTIONAL: True})
    """Of this value, and of the weights that it is multiplied with."""

    @property
    def scale(self) -> float:
        """The real width of one level; the interval is widened to hold zero, which must be exact."""
        low, high = min(self.minimum, 0.0), max(self.maximum, 0.0)
        return float(np.float32(max((high - low) / self.levels.inputs, 1e-12)))

    @property
    def zero_point(self) -> int:
        """The level, 0 to the highest, that stands for zero."""
        return int(np.clip(np.rint(-min(self.minimum, 0.0) / self.scale), 0, self.levels.inputs))


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedLinear:
    """Holds ``y = (x_q - zero_point) * input_scale @ (weight * weight_scale) + bias * input_scale * weight_scale``."""

    weight: np.ndarray
    """(in, out) int8, within [-127, 127]."""
    weight_scale: np.ndarray
    """(out,) float32."""
    bias: np.ndarray | None
    """(out,) int32 in units of ``input_scale * weight_scale``."""
    input_scale: float
    input_zero_point: int
    input_levels: int = ALL_LEVELS.inputs
    """Highest level of an input; higher ones are clipped."""

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (in, out) of the layer."""
        rows, columns = self.weight.shape
        return rows, columns

    @property
    def saturates(self) -> bool:
        """Whether sums of two of its products may leave 16 bits; see `Levels`."""
        return Levels(inputs=self.input_levels, weights=int(np.abs(self.weight).max(initial=0))).saturate

    def dequantized(self) -> np.ndarray:
        """The real weights that the kernel multiplies with, (out, in) float32."""
        return np.asarray((self.weight.astype(np.float32) * self.weight_scale).T)


def quantize_weight(
    weight: np.ndarray, least_scale: np.ndarray | float = 1e-12, levels: Levels = ALL_LEVELS
) -> tuple[np.ndarray, np.ndarray]:
    """Round a weight to int8, one scale per output channel.

    Args:
        weight: (out, in) float32.
        least_scale: (out,) or one for all; above what the weights need where they are almost zero.
        levels: how finely.

    Returns:
        int8 (in, out) and float32 (out,) scales.
    """
    most = levels.weights
    scale = np.maximum(np.abs(weight).max(axis=1) / most, least_scale).astype(np.float32)
    rounded = np.clip(np.rint(weight / scale[:, None]), -most, most).astype(np.int8)
    return np.ascontiguousarray(rounded.T), scale


def quantize_bias(bias: np.ndarray, input_scale: float, weight_scale: np.ndarray) -> np.ndarray:
    """Round a (out,) float32 bias to int32 in units of ``input_scale * weight_scale``."""
    levels = np.rint(bias.astype(np.float64) / (np.float64(input_scale) * weight_scale.astype(np.float64)))
    limit = 2**31 - 1
    return np.clip(levels, -limit, limit).astype(np.int32)


def quantize_linear(linear: Linear, activation: ActivationRange) -> QuantizedLinear:
    """Round one layer to the nearest INT8 levels: the `naive` quantizer.

    Where weights or inputs of a channel are almost zero, its bias decides the scale, or it would not fit 32 bits.

    Args:
        linear: the float32 layer.
        activation: range of the layer's input.
    """
    least = np.abs(linear.bias).astype(np.float64) / (activation.scale * LARGEST_BIAS)
    weight, scale = quantize_weight(linear.weight, np.maximum(least, 1e-12), activation.levels)
    bias = quantize_bias(linear.bias, activation.scale, scale)
    return QuantizedLinear(
        weight=weight,
        weight_scale=scale,
        bias=bias,
        input_scale=activation.scale,
        input_zero_point=activation.zero_point,
        input_levels=activation.levels.inputs,
    )
