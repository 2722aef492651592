"""Replaces the first layer of a head by two of low rank, which hold a fraction of its weights.

A head that reads all tokens has a first layer ``W`` of ten widths by one. Of its outputs ``y = W x + b`` on images, the
leading principal components hold nearly all variance. With the matrix ``U`` of `rank` of them and the mean ``m`` of y,

    y  is replaced by  m + U (Uᵀ (y - m)) = m + U (Uᵀ W x + Uᵀ (b - m)),

which no other matrix of that rank does with less squared error. Both factors are turned by one orthogonal matrix, so
that no component is much wider than the others: INT8 has one scale for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lraee_exporters.tower import Linear
from lraee_toolchain.early_exit.features import Features
from lraee_toolchain.early_exit.heads import first_layer
from lraee_toolchain.early_exit.task import Head
from lraee_toolchain.early_exit.token_heads.training import reads_of


def add_bottlenecks(heads: Sequence[Head], features: Features, blocks: Sequence[int], *, rank: int) -> list[Head]:
    """Give float heads with a first layer of low rank.

    Args:
        heads: float heads that read all tokens.
        features: images with tokens, whose outputs are kept with least squared error.
        blocks: that the heads stand after, rising.
        rank: at most that of the layer; a layer that is not wider is left as it is.
    """
    outputs = [len(head.fc1.bias) if isinstance(head.fc1, Linear) else 0 for head in heads]
    sums = [np.zeros(size) for size in outputs]
    products = [np.zeros((size, size)) for size in outputs]
    for position, _, read in reads_of(heads, features, blocks):
        values = first_layer(heads[position], read).astype(np.float64)
        sums[position] += values.sum(axis=0)
        products[position] += values.T @ values
    count = len(features)
    return [
        _with_bottleneck(head, total / count, product / count, rank) if rank < len(total) else head
        for head, total, product in zip(heads, sums, products, strict=True)
    ]


def _with_bottleneck(head: Head, mean: NDArray[np.float64], second_moment: NDArray[np.float64], rank: int) -> Head:
    assert isinstance(head.fc1, Linear)
    _, vectors = np.linalg.eigh(second_moment - np.outer(mean, mean))
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((rank, rank)))
    components = vectors[:, -rank:] @ turn
    bottleneck = Linear(
        weight=np.ascontiguousarray(components.T @ head.fc1.weight, np.float32),
        bias=np.asarray(components.T @ (head.fc1.bias - mean), np.float32),
    )
    fc1 = Linear(weight=np.ascontiguousarray(components, np.float32), bias=np.asarray(mean, np.float32))
    return replace(head, bottleneck=bottleneck, fc1=fc1)
