"""SmoothQuant: move what is hard to quantize from a LayerNorm's output into the weights after it.

A channel that is a hundred times larger than the others takes the whole range of a per-tensor uint8 activation.
Dividing LayerNorm's gain and bias by ``s`` and multiplying the columns of the weights by ``s`` is the same function:

    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)

Source: Xiao et al., arXiv 2211.10438, equation 4. Folded into LayerNorm, it costs nothing at run time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lraee_exporters.tower import FloatArray, LayerNorm, Linear


def smooth(
    norm: LayerNorm, linears: Sequence[Linear], largest: FloatArray, alpha: float
) -> tuple[LayerNorm, list[Linear]]:
    """Fold the scales of one LayerNorm and the layers that read it.

    Args:
        norm: the LayerNorm.
        linears: every layer that reads its output, and nothing else may.
        largest: (width,) largest magnitude of each channel of the output over the calibration images.
        alpha: 0 leaves all difficulty to the activations, 1 to the weights.

    Returns:
        The same function with scaled parameters.
    """
    weight_largest = np.max([np.abs(linear.weight).max(axis=0) for linear in linears], axis=0)
    activation = np.maximum(largest.astype(np.float64), 1e-5)
    scale = activation**alpha / np.maximum(weight_largest.astype(np.float64), 1e-5) ** (1 - alpha)
    scale = (scale / np.exp(np.log(scale).mean())).astype(np.float32)  # the common factor changes nothing
    smoothed = LayerNorm(weight=norm.weight / scale, bias=norm.bias / scale, epsilon=norm.epsilon)
    return smoothed, [Linear(weight=linear.weight * scale, bias=linear.bias) for linear in linears]
