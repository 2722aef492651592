"""Trains heads that read all tokens of a block, each for itself, from a source of tokens.

The loss, the schedule and the MLP are those of `train_heads`. Every exit sees the same images in the same order, so
that one pass of the tower serves all of them where tokens are not on disk. A first layer that is to have a low rank
learns as the product of two matrices, which `add_bottlenecks` then divides without loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from lraee.errors import ExportError
from lraee_exporters.graphs.exit import HeadInput
from lraee_exporters.graphs.pooling.token_pool import (
    KERNEL,
    QUERIES,
    LocalMixing,
    TokenPool,
    pooled_rows,
)
from lraee_exporters.int8.linear import ALL_LEVELS, ActivationRange, Levels
from lraee_toolchain.array_file import scratch_array
from lraee_toolchain.early_exit.features import Features
from lraee_toolchain.early_exit.heads import (
    Descent,
    Dropout,
    Lesson,
    embed,
    finished_head,
    head_embeddings,
    head_ranges,
    images_of,
    initial_parameters,
    one_pass,
    quantized_head,
)
from lraee_toolchain.early_exit.task import ExitTask, FloatArray, Head, Material
from lraee_toolchain.early_exit.token_heads.reading import pool_tensors, read_tokens
from lraee_toolchain.early_exit.token_heads.sources import HalfTokens, TokenSource

BATCH = 128
"""Images that are read together where nothing is learned; bounds memory."""

SMALL = 0.02
"""Standard deviation of initial queries: at first every query sees little more than the mean."""

FIRST_LAYER = 2
"""Place of the first layer's weights among the parameters of an MLP."""

KERNEL_BOUND = 1 / KERNEL
"""Initial kernels are even between plus and minus this, as torch.nn.Conv2d draws them; GELU of much smaller ones would
be linear, and its mean over the patches blind to neighbours."""


def train_token_heads(
    task: ExitTask,
    material: Material,
    blocks: Sequence[int],
    *,
    reads: HeadInput,
    advance: Callable[[int], None] | None = None,
) -> list[Head]:
    """Train the float32 heads of the exits after `blocks` (rising).

    Args:
        task: labels, training options and the seed of initial weights, order and dropout.
        material: images with all tokens after these blocks.
        blocks: where the exits stand.
        reads: ``attention`` or ``local``.
        advance: called after each epoch.
    """
    source, class_token = tokens_of(material.features), material.features.class_token is not None
    options, generator = task.config.heads, torch.Generator().manual_seed(task.seed)
    width = material.features.patch_mean.shape[-1]
    lesson = Lesson(task, material)
    size = (width, images_of(material))
    learners = [_Learner(task, lesson, size, reads=reads, class_token=class_token) for _ in blocks]
    for _ in range(options.epochs):
        for rows in one_pass(material, options.batch_size, generator):
            for learner, tokens in zip(learners, source.tokens(rows.numpy(), blocks), strict=True):
                learner.step(tokens, rows)
        if advance is not None:
            advance(1)
    return [learner.head() for learner in learners]


class _Learner:
    """One exit's head while it learns."""

    def __init__(
        self, task: ExitTask, lesson: Lesson, size: tuple[int, int], *, reads: HeadInput, class_token: bool
    ) -> None:
        """Draw the initial weights.

        Args:
            task: options and seed.
            lesson: what is learned from.
            size: width of a token, and number of images.
            reads: ``attention`` or ``local``.
            class_token: whether token 0 is a class token.
        """
        width, images = size
        generator = torch.Generator().manual_seed(task.seed)
        self._pool = [SMALL * torch.randn((width, QUERIES), generator=generator)]
        if reads == "local":
            for shape in ((width, 1, KERNEL, KERNEL), (width,)):
                self._pool.append(KERNEL_BOUND * (2 * torch.rand(shape, generator=generator) - 1))
        for weights in self._pool:
            weights.requires_grad_()
        rows = pooled_rows(QUERIES, class_token=class_token)
        self._mlp = initial_parameters(1, (rows * width, width, task.labels.shape[1]), generator)
        self._factors: list[torch.Tensor] = []
        if (rank := task.config.heads.rank_below(width)) is not None:
            self._factors = _initial_factors((rows * width, rank, width), generator)
            del self._mlp[FIRST_LAYER]
        self._drop = Dropout(task.config.heads.dropout, task.seed)
        self._descent = Descent([*self._pool, *self._factors, *self._mlp], task.config.heads, images)
        self._lesson, self._reads, self._class_token = lesson, reads, class_token

    def step(self, tokens: HalfTokens, rows: torch.Tensor) -> None:
        """Learn from the normed tokens of the images `rows`."""
        values, sizes = tokens.floats()
        read = read_tokens(values, self._pool, class_token=self._class_token, sizes=sizes)
        self._descent.step(self._lesson.loss(embed(self._layers(), read[None], self._drop), rows))

    def _layers(self) -> list[torch.Tensor]:
        """Give the MLP's parameters as `embed` takes them."""
        if not self._factors:
            return self._mlp
        return [*self._mlp[:FIRST_LAYER], torch.bmm(*self._factors), *self._mlp[FIRST_LAYER:]]

    def head(self) -> Head:
        """Give the head as it is now."""
        queries, *mixing = (weights.detach().numpy() for weights in self._pool)
        local = LocalMixing(kernel=mixing[0], bias=mixing[1]) if mixing else None
        arrays = [parameter.detach().numpy()[0] for parameter in self._layers()]
        return finished_head(self._reads, *arrays, pool=TokenPool(queries=queries, mixing=local))


def _initial_factors(sizes: tuple[int, int, int], generator: torch.Generator) -> list[torch.Tensor]:
    """Draw two matrices whose product is the first layer, (1, in, rank) and (1, rank, out)."""
    size_in, rank, size_out = sizes
    shapes = ((1, size_in, rank), (1, rank, size_out))
    drawn = [(2 * torch.rand(shape, generator=generator) - 1) * shape[1] ** -0.5 for shape in shapes]
    return [factor.requires_grad_() for factor in drawn]


def quantize_token_heads(
    heads: Sequence[Head], features: Features, blocks: Sequence[int], levels: Levels = ALL_LEVELS
) -> list[Head]:
    """Quantize the heads after `blocks` to INT8, their activation ranges from all images."""
    met: list[list[tuple[ActivationRange, ...]]] = [[] for _ in heads]
    for position, _, read in reads_of(heads, features, blocks):
        met[position].append(head_ranges(heads[position], read))
    every = zip(heads, met, strict=True)
    return [quantized_head(head, *zip(*ranges, strict=True), levels=levels) for head, ranges in every]


def embed_tokens(heads: Sequence[Head], features: Features, blocks: Sequence[int]) -> None:
    """Compute what heads after `blocks` (rising) answer for all images and keep it in `features`.

    One pass over the tokens serves all heads that have not answered yet.
    """
    todo = [(head, block) for head, block in zip(heads, blocks, strict=True) if head not in features.answers]
    if not todo:
        return
    heads, blocks = [head for head, _ in todo], [block for _, block in todo]
    shape = len(features), features.embedding.shape[1]
    answers = [scratch_array(features.scratch, np.float32, shape) for _ in heads]
    for position, rows, read in reads_of(heads, features, blocks):
        answers[position][rows] = head_embeddings(heads[position], read)
    features.answers.update(zip(heads, answers, strict=True))


def reads_of(
    heads: Sequence[Head], features: Features, blocks: Sequence[int]
) -> Iterator[tuple[int, slice, FloatArray]]:
    """Yield the position of each head with the next images and what it reads of them, in the order of the images."""
    source, class_token = tokens_of(features), features.class_token is not None
    pools = [pool_tensors(head.pool) for head in heads if head.pool is not None]
    for start in range(0, len(source), BATCH):
        rows = slice(start, min(start + BATCH, len(source)))
        for position, tokens in enumerate(source.tokens(np.arange(rows.start, rows.stop), blocks)):
            values, sizes = tokens.floats()
            read = read_tokens(values, pools[position], class_token=class_token, sizes=sizes)
            yield position, rows, read.numpy()


def tokens_of(features: Features) -> TokenSource:
    """Give the tokens of images that must have them.

    Raises:
        ExportError: they were extracted without.
    """
    if features.tokens is None:
        raise ExportError("heads that read all tokens need features that were extracted with them")
    return features.tokens
