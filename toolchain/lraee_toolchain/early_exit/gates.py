"""Fit the gate of an exit: logistic regression of "its answer is good" on three scalars.

    G = sigmoid(w1 * confidence + w2 * margin + w3 * SAV + b)          (arXiv 2605.26415, section 3)

The paper trains it with Adam; the loss is convex in four numbers, so Newton's method finds the same minimum in a few
steps and without a seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import GateInfo

FloatArray = NDArray[np.float32]

RIDGE = 1e-3
"""Weight decay per image on the standardized weights; it keeps them finite when an exit is always right."""


def gate_features(probabilities: FloatArray, variance: FloatArray) -> FloatArray:
    """Compute confidence, top-2 margin and spatial activation variance, (images, 3) float32.

    Args:
        probabilities: (images, labels), at least two labels.
        variance: (images,).
    """
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.stack([top[:, 1], top[:, 1] - top[:, 0], variance], axis=1).astype(np.float32)


def fit_gate(features: FloatArray, good: NDArray[np.bool_]) -> GateInfo:
    """Fit a gate by Newton's method.

    Features are standardized first, and the scaling is folded into the weights, so that the run-time gate stays
    three weights and a bias.

    Args:
        features: (images, 3) from `gate_features`.
        good: (images,) whether the exit's answer is right (with labels) or agrees with FP32 (label-free).
    """
    x = features.astype(np.float64)
    center, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-9 * np.maximum(np.abs(center), 1e-30), spread, np.inf)
    design = np.concatenate([(x - center) / spread, np.ones((len(x), 1))], axis=1)
    target = good.astype(np.float64)
    penalty = RIDGE * len(x) * np.diag([1.0, 1.0, 1.0, 1e-3])
    weights = np.zeros(4)

    def loss(candidate: NDArray[np.float64]) -> float:
        logits = design @ candidate
        return float((np.logaddexp(0, logits) - target * logits).sum() + 0.5 * candidate @ penalty @ candidate)

    for _ in range(50):
        probability = _sigmoid(design @ weights)
        gradient = design.T @ (probability - target) + penalty @ weights
        hessian = (design * (probability * (1 - probability))[:, None]).T @ design + penalty
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and loss(weights - size * step) > loss(weights):
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    natural = weights[:3] / spread
    return GateInfo(
        weights=(float(natural[0]), float(natural[1]), float(natural[2])),
        bias=float(weights[3] - (natural * center).sum()),
    )


def gate_values(gate: GateInfo, features: FloatArray) -> FloatArray:
    """Compute the gate for each image, (images,) float32, 0 to 1."""
    logits = features.astype(np.float64) @ np.array(gate.weights) + gate.bias
    return _sigmoid(logits).astype(np.float32)


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))
