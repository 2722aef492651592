"""Quantizes a linear layer to INT8: int8 weights per output channel, uint8 activations per tensor, int32 bias.

The scheme is fixed by what ONNX Runtime's CPU kernels run fast (U8S8 with float output, `QGemm`):
activations asymmetric uint8, weights symmetric int8 with one scale per output channel.

Source of the arithmetic: Jacob et al., arXiv 1712.05877, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lraee_exporters.tower import Linear

LARGEST_BIAS = 2**30
"""Bias levels at most: half of int32, so that the sum of the GEMM still fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRange:
    """Describes the real interval that the 256 levels of a quantized activation cover.

    >>> ActivationRange(minimum=-1.0, maximum=1.55).zero_point
    100
    """

    minimum: float
    maximum: float

    @property
    def scale(self) -> float:
        """The real width of one level; the interval is widened to hold zero, which must be exact."""
        low, high = min(self.minimum, 0.0), max(self.maximum, 0.0)
        return float(np.float32(max((high - low) / 255.0, 1e-12)))

    @property
    def zero_point(self) -> int:
        """The level, 0 to 255, that stands for zero."""
        return int(np.clip(np.rint(-min(self.minimum, 0.0) / self.scale), 0, 255))


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

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (in, out) of the layer."""
        rows, columns = self.weight.shape
        return rows, columns

    def dequantized(self) -> np.ndarray:
        """The real weights that the kernel multiplies with, (out, in) float32."""
        return np.asarray((self.weight.astype(np.float32) * self.weight_scale).T)


def quantize_weight(weight: np.ndarray, least_scale: np.ndarray | float = 1e-12) -> tuple[np.ndarray, np.ndarray]:
    """Round a weight to int8, one scale per output channel.

    Args:
        weight: (out, in) float32.
        least_scale: (out,) or one for all; above what the weights need where they are almost zero.

    Returns:
        int8 (in, out) and float32 (out,) scales.
    """
    scale = np.maximum(np.abs(weight).max(axis=1) / 127.0, least_scale).astype(np.float32)
    levels = np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int8)
    return np.ascontiguousarray(levels.T), scale


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
    weight, scale = quantize_weight(linear.weight, np.maximum(least, 1e-12))
    bias = quantize_bias(linear.bias, activation.scale, scale)
    return QuantizedLinear(
        weight=weight,
        weight_scale=scale,
        bias=bias,
        input_scale=activation.scale,
        input_zero_point=activation.zero_point,
    )
