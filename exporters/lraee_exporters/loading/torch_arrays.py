"""Copies torch's tensors and layers to the plain arrays of `lraee_exporters.tower`."""

from typing import Any

import numpy as np
import torch

from lraee_exporters.tower import FloatArray, LayerNorm, Linear


def array_of(tensor: torch.Tensor) -> FloatArray:
    """Copy a tensor to float32 numpy, so that later changes of the model do not reach the description."""
    array: FloatArray = tensor.detach().cpu().float().contiguous().numpy().copy()
    return array


def layer_norm_of(module: Any) -> LayerNorm:
    """Describe a LayerNorm by its gain, bias and epsilon."""
    return LayerNorm(weight=array_of(module.weight), bias=array_of(module.bias), epsilon=float(module.eps))


def linear_of(module: Any) -> Linear:
    """Describe a linear layer, with zeros for a missing bias."""
    weight = array_of(module.weight)
    bias = np.zeros(len(weight), np.float32) if module.bias is None else array_of(module.bias)
    return Linear(weight=weight, bias=bias)


def split_linear(joined: Linear, count: int) -> tuple[Linear, ...]:
    """Take apart layers that torch keeps in one matrix, one below the other."""
    weights, biases = np.split(joined.weight, count), np.split(joined.bias, count)
    return tuple(Linear(weight=weight.copy(), bias=bias.copy()) for weight, bias in zip(weights, biases, strict=True))
