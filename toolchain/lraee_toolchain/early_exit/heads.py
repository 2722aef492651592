"""Train exit heads on cached features, and compute what a head answers, in float32 or as the INT8 kernel will.

A head is ``LayerNorm -> Linear(d, d) -> GELU -> Linear(d, embed_dim) -> unit length``. With labels it learns from
cross-entropy over the label embeddings plus ``1 - cosine`` to the FP32 embedding (the paper's "FP32-distilled");
without, from the FP32 tower's label distribution and embedding alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lraee.errors import ExportError
from lraee_exporters.graphs.exit import HeadInput
from lraee_exporters.graphs.layers import AnyLinear
from lraee_exporters.graphs.pooling.token_pool import TokenPool
from lraee_exporters.int8.linear import ALL_LEVELS, ActivationRange, Levels, QuantizedLinear, quantize_linear
from lraee_exporters.tower import LayerNorm, Linear
from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.early_exit.features import Features
from lraee_toolchain.early_exit.rows import RowArray, chunks
from lraee_toolchain.early_exit.task import ExitTask, FloatArray, Head, Material

EPSILON = 1e-5

LEAST_STEPS = 20
"""Least steps of the learning rate's cycle; torch divides by zero where a tenth of the cycle is one step."""


def head_input(
    features: Features, block: int, reads: HeadInput, rows: slice | NDArray[np.int64] = slice(None)
) -> FloatArray:
    """Select what the head after `block` (from 1) reads: (images, width), or (images, 2 * width) for ``both``.

    What heads read of tokens is computed by `token_heads`.

    Args:
        features: of all images.
        block: the head stands after it.
        reads: of pooled tokens.
        rows: of the images; all by default.
    """
    if reads == "patch_mean":
        return np.asarray(features.patch_mean[rows, block - 1])
    if features.class_token is None:
        raise ExportError(
            f"a head that reads {reads} needs a class token, which this tower does not have; read patch_mean"
        )
    token = features.class_token[rows, block - 1]
    if reads == "both":
        return np.concatenate([features.patch_mean[rows, block - 1], token], axis=1)
    return np.asarray(token)


def train_heads(
    task: ExitTask,
    material: Material,
    blocks: Sequence[int],
    *,
    reads: HeadInput,
    advance: Callable[[int], None] | None = None,
) -> list[Head]:
    """Train the heads of several exits at once in float32: one stacked network, independent of each other.

    Args:
        task: labels, training options and the seed of initial weights, order and dropout.
        material: images to learn from; of each batch the rows are read when it is its turn.
        blocks: where the exits stand.
        reads: what all heads read, of pooled tokens.
        advance: called after each epoch.
    """
    options, generator = task.config.heads, torch.Generator().manual_seed(task.seed)
    exits, hidden = len(blocks), material.features.patch_mean.shape[2]
    width = 2 * hidden if reads == "both" else hidden
    parameters = initial_parameters(exits, (width, hidden, task.labels.shape[1]), generator)
    drop = Dropout(options.dropout, task.seed)
    lesson, descent = Lesson(task, material), Descent(parameters, options, images_of(material))
    for _ in range(options.epochs):
        for rows in one_pass(material, options.batch_size, generator):
            read = [head_input(material.features, block, reads, rows.numpy()) for block in blocks]
            descent.step(lesson.loss(embed(parameters, torch.from_numpy(np.stack(read)), drop), rows))
        if advance is not None:
            advance(1)
    arrays = [tensor.detach().numpy() for tensor in parameters]
    return [finished_head(reads, *(array[position] for array in arrays)) for position in range(exits)]


def images_of(material: Material) -> int:
    """Count the images that one pass reads."""
    return len(material.features) // material.forms


def one_pass(material: Material, batch: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Draw the rows of one pass in random order, in batches: of each image one form."""
    images = images_of(material)
    order = torch.randperm(images, generator=generator)
    if material.forms > 1:
        order += images * torch.randint(material.forms, (images,), generator=generator)
    return (order[start : start + batch] for start in range(0, images, batch))


class Lesson:
    """What heads learn from: classes or the teacher's label distribution, and the teacher's embedding."""

    def __init__(self, task: ExitTask, material: Material) -> None:
        """Name the task and its images."""
        self._options, self._scale = task.config.heads, task.logit_scale
        self._teacher = material.teacher
        self._text = torch.from_numpy(np.array(task.labels)).T.contiguous()
        self._hard = None if material.classes is None else torch.from_numpy(np.array(material.classes))

    def loss(self, embedding: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Sum the loss over the exits, from their embeddings (exits, images, embed_dim) of the images `rows`."""
        exits, share = len(embedding), 0.0 if self._hard is None else self._options.label_share
        logits = (self._scale * embedding @ self._text).flatten(0, 1)
        loss = torch.zeros(())
        if self._hard is not None and share > 0:
            wanted = self._hard[rows].repeat(exits)
            loss = share * F.cross_entropy(logits, wanted, label_smoothing=self._options.label_smoothing)
        if share < 1:
            soft = torch.from_numpy(np.array(self._teacher.probabilities[rows.numpy()]))
            loss = loss + (1 - share) * F.cross_entropy(logits, soft.repeat(exits, 1))
        target = torch.from_numpy(np.array(self._teacher.embedding[rows.numpy()]))
        loss = loss + self._options.distillation * (1 - (embedding * target).sum(-1)).mean()
        return loss * exits


class Descent:
    """AdamW with a one-cycle learning rate over the whole training."""

    def __init__(self, parameters: Sequence[torch.Tensor], options: HeadTraining, images: int) -> None:
        """Prepare as many steps as the images and options make."""
        rate = options.learning_rate
        self._optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=options.weight_decay, fused=True)
        steps = max(1, -(-images // options.batch_size)) * options.epochs
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, rate, total_steps=max(steps, LEAST_STEPS), pct_start=0.1
        )

    def step(self, loss: torch.Tensor) -> None:
        """Follow the loss downhill once."""
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimizer.step()
        self._schedule.step()


def initial_parameters(exits: int, sizes: tuple[int, int, int], generator: torch.Generator) -> list[torch.Tensor]:
    """LayerNorm's gain and shift, and weight (in, out) and bias of both layers, stacked over the exits."""

    def linear(size_in: int, size_out: int) -> list[torch.Tensor]:
        bound = size_in**-0.5  # torch.nn.Linear's initial distribution
        weight = torch.rand((exits, size_in, size_out), generator=generator) * (2 * bound) - bound
        return [weight, torch.rand((exits, 1, size_out), generator=generator) * (2 * bound) - bound]

    width, hidden, embed_dim = sizes
    norm = [torch.ones(exits, 1, width), torch.zeros(exits, 1, width)]
    return [p.requires_grad_() for p in (*norm, *linear(width, hidden), *linear(hidden, embed_dim))]


class Dropout:
    """Dropout whose masks are drawn as bytes, which is six times as fast as torch draws float32."""

    def __init__(self, share: float, seed: int) -> None:
        self._masks, self._levels = np.random.default_rng(seed), round(256 * (1 - share))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Set a share of the values to zero and scale up the others."""
        kept = torch.from_numpy(self._masks.integers(0, 256, tuple(values.shape), np.uint8)) < self._levels
        return values * kept * (256 / self._levels)


def embed(parameters: Sequence[torch.Tensor], x: torch.Tensor, drop: Dropout) -> torch.Tensor:
    """Compute the stacked heads' unit embeddings, (exits, images, embed_dim), in training."""
    gain, shift, weight_1, bias_1, weight_2, bias_2 = parameters
    normed = F.layer_norm(x, (x.shape[-1],), eps=EPSILON) * gain + shift
    middle = drop(F.gelu(torch.baddbmm(bias_1, drop(normed), weight_1)))
    return F.normalize(torch.baddbmm(bias_2, middle, weight_2), dim=-1)


def finished_head(reads: HeadInput, *arrays: FloatArray, pool: TokenPool | None = None) -> Head:
    """Build a head from its slice of the stacked arrays, weights (in, out)."""
    gain, shift, weight_1, bias_1, weight_2, bias_2 = (np.ascontiguousarray(array) for array in arrays)
    return Head(
        reads=reads,
        norm=LayerNorm(weight=gain[0], bias=shift[0], epsilon=EPSILON),
        fc1=Linear(weight=np.ascontiguousarray(weight_1.T), bias=bias_1[0]),
        fc2=Linear(weight=np.ascontiguousarray(weight_2.T), bias=bias_2[0]),
        pool=pool,
    )


def quantize_head(head: Head, inputs: Iterable[FloatArray], levels: Levels = ALL_LEVELS) -> Head:
    """Quantize a head to INT8, its activation ranges from `inputs`, pieces of (images, d)."""
    return quantized_head(head, *zip(*(head_ranges(head, piece) for piece in inputs), strict=True), levels=levels)


def read_in_chunks(features: Features, block: int, reads: HeadInput) -> Iterator[FloatArray]:
    """Yield the `head_input` of all images, some at a time."""
    for rows in chunks(len(features), 4 * features.patch_mean.shape[2]):
        yield head_input(features, block, reads, rows)


def head_ranges(head: Head, inputs: FloatArray) -> tuple[ActivationRange, ...]:
    """Measure the ranges of what each layer of a float head reads for `inputs` (images, d), in their order."""
    normed = _normed(head, inputs)
    met = [_range(normed)]
    if head.bottleneck is not None:
        met.append(_range(_apply(head.bottleneck, normed)))
    return (*met, _range(_gelu(first_layer(head, inputs))))


def quantized_head(head: Head, *met: Iterable[ActivationRange], levels: Levels = ALL_LEVELS) -> Head:
    """Quantize all layers of a float head to INT8, each with a range that holds all of those met; as `head_ranges`."""
    names = ("fc1", "fc2") if head.bottleneck is None else ("bottleneck", "fc1", "fc2")
    layers: dict[str, Any] = {}
    for name, ranges in zip(names, met, strict=True):
        layer = getattr(head, name)
        assert isinstance(layer, Linear)
        layers[name] = quantize_linear(layer, _union(ranges, levels))
    return replace(head, **layers)


def _union(ranges: Iterable[ActivationRange], levels: Levels) -> ActivationRange:
    """Find the range that holds all of them."""
    met = list(ranges)
    low, high = min(one.minimum for one in met), max(one.maximum for one in met)
    return ActivationRange(minimum=low, maximum=high, levels=levels)


def head_embeddings(head: Head, inputs: FloatArray) -> FloatArray:
    """Compute (images, embed_dim) float32 unit embeddings; an INT8 head uses the integers of the run-time kernel."""
    output = _apply(head.fc2, _gelu(first_layer(head, inputs)))
    return np.asarray(output / np.maximum(np.linalg.norm(output, axis=1, keepdims=True), 1e-12))


def first_layer(head: Head, inputs: FloatArray) -> FloatArray:
    """Compute what a head's activation reads, (images, hidden)."""
    normed = _normed(head, inputs)
    return _apply(head.fc1, normed if head.bottleneck is None else _apply(head.bottleneck, normed))


def label_logits(embeddings: FloatArray, labels: FloatArray, logit_scale: float) -> FloatArray:
    """Compute the logits of every label, (images, labels) float32."""
    return np.asarray(embeddings @ labels.T * np.float32(logit_scale))


def softmax(logits: FloatArray) -> FloatArray:
    """Apply softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def fit_temperature(logits: RowArray, target: RowArray) -> float:
    """Fit the temperature T that minimizes the cross-entropy of ``softmax(logits / T)`` to `target` (images, labels).

    Both are read some rows at a time.

    Source: Guo et al., arXiv 1706.04599; found by golden-section search over log T in [1/20, 20].
    """

    def of_images(log_temperature: float, rows: slice) -> FloatArray:
        scaled = logits[rows] / np.float32(np.exp(log_temperature))
        shifted = scaled - scaled.max(axis=1, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.asarray(-(target[rows] * log_probability).sum(axis=1))

    def loss(log_temperature: float) -> float:
        return float(np.concatenate([of_images(log_temperature, rows) for rows in chunks(*logits.shape[:2])]).mean())

    low, high, ratio = -3.0, 3.0, (5**0.5 - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def _normed(head: Head, inputs: FloatArray) -> FloatArray:
    x = torch.from_numpy(np.array(inputs))
    weight, bias = torch.from_numpy(head.norm.weight), torch.from_numpy(head.norm.bias)
    return np.asarray(F.layer_norm(x, (x.shape[1],), weight, bias, head.norm.epsilon).numpy())


def _gelu(values: FloatArray) -> FloatArray:
    return np.asarray(F.gelu(torch.from_numpy(values)).numpy())


def _range(values: FloatArray) -> ActivationRange:
    return ActivationRange(minimum=float(values.min()), maximum=float(values.max()))


def _apply(linear: AnyLinear, values: FloatArray) -> FloatArray:
    if isinstance(linear, Linear):
        return np.asarray(values @ linear.weight.T + linear.bias)
    return _apply_int8(linear, values)


def _apply_int8(linear: QuantizedLinear, values: FloatArray) -> FloatArray:
    levels = np.clip(np.rint(values / np.float32(linear.input_scale)) + linear.input_zero_point, 0, linear.input_levels)
    centred = levels - linear.input_zero_point
    # integers below 2**53 are exact in float64, and BLAS is fast on it
    sums = centred.astype(np.float64) @ linear.weight.astype(np.float64)
    if linear.bias is not None:
        sums += linear.bias
    return np.asarray((sums * (np.float64(linear.input_scale) * linear.weight_scale)).astype(np.float32))
