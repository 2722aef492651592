"""GPTQ: rounds weights so that later input channels compensate the errors of earlier ones.

Input channels are rounded one after the other. The error of each is spread over those still to come, so that the
layer's output on the calibration images changes least.

Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1 (blocked, without reordering).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from lraee_exporters.int8.linear import ALL_LEVELS, Levels
from lraee_exporters.tower import FloatArray

COLUMNS = 128
"""Input channels of one block, after which the rest is updated; it changes the speed, not the result."""

DAMPING = 0.01
"""Share of the mean diagonal added to the Hessian, so that it can be inverted."""


def round_with_gptq(
    weight: FloatArray, scale: FloatArray, hessian: npt.NDArray[np.float64], levels: Levels = ALL_LEVELS
) -> npt.NDArray[np.int8]:
    """Round a weight to int8 within given scales.

    Args:
        weight: (out, in) float32.
        scale: (out,) float32, one for each output channel.
        hessian: (in, in) float64, sum over calibration rows of the outer products of the layer's input, as the
            kernel sees it (after quantization).
        levels: how finely.

    Returns:
        (in, out) int8.
    """
    size = weight.shape[1]
    matrix = torch.from_numpy(hessian.copy())
    dead = matrix.diagonal() == 0
    matrix.diagonal()[dead] = 1.0
    matrix.diagonal().add_(DAMPING * matrix.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    rest = torch.from_numpy(weight.copy())
    rest[:, dead] = 0
    steps = torch.from_numpy(scale)
    rounded_levels = torch.empty_like(rest)
    for start in range(0, size, COLUMNS):
        end = min(start + COLUMNS, size)
        block, errors = rest[:, start:end].clone(), torch.zeros(rest.shape[0], end - start)
        square = upper[start:end, start:end]
        for i in range(end - start):
            column = block[:, i]
            rounded = (column / steps).round().clamp(-levels.weights, levels.weights)
            rounded_levels[:, start + i] = rounded
            error = (column - rounded * steps) / square[i, i]
            block[:, i:] -= error[:, None] * square[i, i:][None]
            errors[:, i] = error
        rest[:, end:] -= errors @ upper[start:end, end:]
    return np.ascontiguousarray(rounded_levels.T.to(torch.int8).numpy())
