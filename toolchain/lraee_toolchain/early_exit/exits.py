"""An exit from training to its answers: a head, a temperature, and a gate that judges the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import GateInfo
from lraee_exporters.graphs.exit import HEAD_INPUTS, POOLED_INPUTS, TOKEN_INPUTS, ExitWeights, HeadInput
from lraee_toolchain.array_file import scratch_array
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.features import Features
from lraee_toolchain.early_exit.gates import fit_gate, gate_features, gate_values
from lraee_toolchain.early_exit.heads import (
    fit_temperature,
    head_embeddings,
    head_input,
    label_logits,
    quantize_head,
    read_in_chunks,
    softmax,
    train_heads,
)
from lraee_toolchain.early_exit.outcomes import ExitScores
from lraee_toolchain.early_exit.rows import OneHot, chunks
from lraee_toolchain.early_exit.task import ExitTask, FloatArray, Head, Material
from lraee_toolchain.early_exit.token_heads.bottleneck import add_bottlenecks
from lraee_toolchain.early_exit.token_heads.training import embed_tokens, quantize_token_heads, train_token_heads

PAPER_EXITS = (8 / 12, 10 / 12, 11 / 12)
"""Depths of the paper's exits on ViT-B/32, for towers whose weights cannot tell which exits pay."""

ROOM = 0.01
"""Accuracy below full depth from which on ``reads=auto`` tries heads that read all tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedExit:
    """A head that answers and a gate that judges the answer."""

    block: int
    """The exit stands after this block."""
    head: Head
    temperature: float
    gate: GateInfo
    accuracy: float
    """Of the exit alone on the gating split, 0 to 1; agreement with FP32 without labels."""

    def weights(self, logit_bias: float | None) -> ExitWeights:
        """Give what the exit's ONNX part is built from."""
        return ExitWeights(
            reads=self.head.reads,
            norm=self.head.norm,
            fc1=self.head.fc1,
            fc2=self.head.fc2,
            logit_bias=logit_bias,
            temperature=self.temperature,
            gate_weights=self.gate.weights,
            gate_bias=self.gate.bias,
            pool=self.head.pool,
            bottleneck=self.head.bottleneck,
        )


@dataclass(frozen=True, slots=True, eq=False)
class ExitAnswers:
    """What one exit says of a split."""

    probabilities: FloatArray
    """(images, labels)."""
    gate: FloatArray
    """(images,)."""


def candidates(exits: str | tuple[int, ...], depth: int, *, is_random: bool = False) -> tuple[int, ...]:
    """List the blocks that may get an exit: those asked for, or all from a sixth of the depth to the last but one."""
    if exits == "none":
        return ()
    if isinstance(exits, tuple):
        return tuple(sorted(set(exits)))
    if is_random:
        return tuple(sorted({round(depth * share) for share in PAPER_EXITS}))
    first = max(1, depth // 6) if exits == "auto" else 1
    return tuple(range(first, depth))


def head_inputs(config: ExportConfig, *, class_token: bool, tokens: bool) -> Sequence[HeadInput]:
    """List the inputs that heads are tried with.

    Args:
        config: names one, or leaves the choice; where tokens are merged, no grid of patches is left for ``local``.
        class_token: whether there is a class token to choose.
        tokens: whether all tokens are at hand, for heads that learn from them.
    """
    if config.reads != "auto":
        return (config.reads,)
    kinds = HEAD_INPUTS if tokens else POOLED_INPUTS
    if config.merge_tokens:
        kinds = tuple(reads for reads in kinds if reads != "local")
    return tuple(reads for reads in kinds if class_token or reads not in ("cls", "both"))


def best_exits(
    task: ExitTask,
    heads: Material,
    gating: Material,
    blocks: Sequence[int],
    *,
    advance: Callable[[int], None] | None = None,
) -> list[TrainedExit]:
    """Train exits whose heads read what the configuration says.

    With ``reads=auto`` each exit reads what answers best on the gating split; of equals, what takes the fewest FLOPs.
    Heads of pooled inputs are tried everywhere. Those that read all tokens learn far more slowly, and are tried where
    the tokens are at hand and where they can gain something; see `worth_trying`.

    Args:
        task: labels and options.
        heads: images that heads learn from.
        gating: images that heads are compared on.
        blocks: where the exits stand, rising.
        advance: called with the epochs done or left out, for each kind of head.
    """
    features, config = heads.features, task.config
    kinds = head_inputs(config, class_token=features.class_token is not None, tokens=features.tokens is not None)
    full_depth = float(gating.full_good.mean())
    best: dict[int, TrainedExit] = {}
    for reads in kinds:
        asked: Sequence[int] = blocks
        if config.reads == "auto" and task.kinds:
            asked = [block for block in blocks if task.kinds.get(block, kinds[0]) == reads]
        elif config.reads == "auto":
            asked = worth_trying(reads, blocks, {block: full_depth - best[block].accuracy for block in best})
        trained = train_exits(task, heads, gating, asked, reads=reads, advance=advance) if asked else []
        if not asked and advance is not None:
            advance(config.heads.epochs)
        for one in trained:
            met = best.get(one.block, one)
            best[one.block] = max(met, one, key=lambda exit: _worth(task, exit))
    return [best[block] for block in blocks]


def worth_trying(reads: HeadInput, blocks: Sequence[int], gaps: Mapping[int, float]) -> list[int]:
    """List the blocks after which ``reads=auto`` tries a kind of head.

    Pooled inputs are tried after every block. ``attention`` is tried where the best head so far is more than `ROOM`
    less accurate than full depth; a head that is as good as full depth leaves nothing to gain. ``local`` is tried there
    too, but only in the first third of the blocks: deeper blocks have mixed neighbouring patches themselves.

    Args:
        reads: the kind.
        blocks: of all candidates, rising.
        gaps: accuracy at full depth less that of the best head so far, by block, on the gating split.

    >>> worth_trying("attention", (4, 5, 6, 7), {4: 0.04, 5: 0.02, 6: 0.011, 7: 0.002})
    [4, 5, 6]
    >>> worth_trying("local", (4, 5, 6, 7), {4: 0.03, 5: 0.009, 6: 0.011, 7: 0.002})
    [4]
    """
    if reads not in TOKEN_INPUTS:
        return list(blocks)
    within = blocks if reads == "attention" else blocks[: math.ceil(len(blocks) / 3)]
    return [block for block in within if gaps[block] > ROOM]


def _worth(task: ExitTask, trained: TrainedExit) -> tuple[float, int]:
    """Order exits by accuracy, then by fewest FLOPs."""
    return trained.accuracy, -task.costs.exit(trained.head.reads, trained.block)


def train_exits(
    task: ExitTask,
    heads: Material,
    gating: Material,
    blocks: Sequence[int],
    *,
    reads: HeadInput,
    advance: Callable[[int], None] | None = None,
) -> list[TrainedExit]:
    """Train head, temperature and gate of the exits after `blocks`.

    Args:
        task: labels and options.
        heads: images that heads learn from.
        gating: images that temperatures and gates are fitted on.
        blocks: where the exits stand.
        reads: what all heads read.
        advance: called after each epoch of the heads' training.
    """
    if reads in TOKEN_INPUTS:
        trained = _token_heads(task, heads, blocks, reads=reads, advance=advance)
        if task.config.heads.rank is not None:
            trained = add_bottlenecks(trained, heads.features, blocks, rank=task.config.heads.rank)
        if task.int8:
            trained = quantize_token_heads(trained, heads.features, blocks, task.config.levels)
        embed_tokens(trained, gating.features, blocks)
    else:
        trained = train_heads(task, heads, blocks, reads=reads, advance=advance)
        if task.int8:
            read = [read_in_chunks(heads.features, block, reads) for block in blocks]
            levels = task.config.levels
            trained = [quantize_head(head, inputs, levels) for head, inputs in zip(trained, read, strict=True)]
    return [_finish_exit(task, head, gating, block) for head, block in zip(trained, blocks, strict=True)]


def _token_heads(
    task: ExitTask,
    material: Material,
    blocks: Sequence[int],
    *,
    reads: HeadInput,
    advance: Callable[[int], None] | None,
) -> list[Head]:
    """Train float heads that read all tokens; those that learned with the trunk are taken as they are."""
    known = {block: head for block, head in task.learned.items() if head.reads == reads}
    unknown = [block for block in blocks if block not in known]
    if unknown:
        learned = train_token_heads(task, material, unknown, reads=reads, advance=advance)
        known |= dict(zip(unknown, learned, strict=True))
    elif advance is not None:
        advance(task.config.heads.epochs)
    return [known[block] for block in blocks]


def _finish_exit(task: ExitTask, head: Head, gating: Material, block: int) -> TrainedExit:
    """Fit temperature and gate to what a head answers on the gating split."""
    features, count, labels = gating.features, len(gating.features), len(task.labels)
    logits: FloatArray = scratch_array(features.scratch, np.float32, (count, labels))
    for rows in chunks(count, labels):
        logits[rows] = label_logits(_embeddings(head, features, block, rows), task.labels, task.logit_scale)
    target = gating.teacher.probabilities if gating.classes is None else OneHot(gating.classes, labels)
    temperature = fit_temperature(logits, target)
    met, good = np.empty((count, 3), np.float32), np.empty(count, np.bool_)
    for rows in chunks(count, labels):
        probabilities = softmax(logits[rows] / np.float32(temperature))
        met[rows] = gate_features(probabilities, features.variance[rows, block - 1])
        good[rows] = gating.good(probabilities, rows)
    return TrainedExit(
        block=block,
        head=head,
        temperature=temperature,
        gate=fit_gate(met, good),
        accuracy=float(good.mean()),
    )


def _embeddings(head: Head, features: Features, block: int, rows: slice) -> FloatArray:
    """Compute what the head after `block` answers for some images, (images, embed_dim)."""
    if head.pool is None:
        return head_embeddings(head, head_input(features, block, head.reads, rows))
    embed_tokens([head], features, [block])
    return np.asarray(features.answers[head][rows])


def answers_of(task: ExitTask, trained: TrainedExit, features: Features, rows: slice = slice(None)) -> ExitAnswers:
    """Compute what an exit answers for cached features, as its ONNX part would.

    Args:
        task: the labels.
        trained: the exit.
        features: of all images.
        rows: the images to answer for; all at once need memory for every label of every image.
    """
    embeddings = _embeddings(trained.head, features, trained.block, rows)
    logits = label_logits(embeddings, task.labels, task.logit_scale)
    probabilities = softmax(logits / np.float32(trained.temperature))
    values = gate_features(probabilities, features.variance[rows, trained.block - 1])
    return ExitAnswers(probabilities, gate_values(trained.gate, values))


def answers_in_chunks(task: ExitTask, trained: TrainedExit, features: Features) -> Iterator[tuple[slice, ExitAnswers]]:
    """Yield what an exit answers for all images, some at a time, with their rows."""
    for rows in chunks(len(features), len(task.labels)):
        yield rows, answers_of(task, trained, features, rows)


def refit(task: ExitTask, exits: Sequence[TrainedExit], gating: Material) -> list[TrainedExit]:
    """Fit temperatures and gates anew, of exits whose heads stay as they are.

    Args:
        task: labels and options.
        exits: whose heads are taken, by rising block.
        gating: what they are fitted on, such as images whose tokens are merged.
    """
    _embed_all(exits, gating)
    return [_finish_exit(task, trained.head, gating, trained.block) for trained in exits]


def _embed_all(exits: Sequence[TrainedExit], material: Material) -> None:
    """Compute what all heads that read tokens answer in one pass over the tokens."""
    looking = [trained for trained in exits if trained.head.pool is not None]
    if looking:
        embed_tokens([trained.head for trained in looking], material.features, [trained.block for trained in looking])


def score(
    task: ExitTask, exits: Sequence[TrainedExit], material: Material, *, schedule: str | None = None
) -> ExitScores:
    """Compute what a set of exits would do for a split, and what they cost.

    Args:
        task: its costs are those of the parts that `material` comes from.
        exits: by rising block.
        material: of the split.
        schedule: name of the merging schedule of these parts.
    """
    _embed_all(exits, material)
    unlabelled = replace(material, classes=None)
    kinds = [material] if material.classes is None else [material, unlabelled]
    gate = np.empty((len(material.features), len(exits)), np.float32)
    good = [np.empty(gate.shape) for _ in kinds]
    for column, trained in enumerate(exits):
        for rows, answers in answers_in_chunks(task, trained, material.features):
            gate[rows, column] = answers.gate
            for found, kind in zip(good, kinds, strict=True):
                found[rows, column] = kind.good(answers.probabilities, rows)

    def scores(kind: Material, found: NDArray[np.float64]) -> ExitScores:
        merged_good = kind.merged_good
        return ExitScores(
            blocks=tuple(trained.block for trained in exits),
            gate=gate,
            good=found,
            full_good=kind.full_good.astype(np.float64),
            exit_flops=np.array([task.costs.up_to(trained.block) for trained in exits], np.float64),
            visit_flops=np.array([task.costs.exit(one.head.reads, one.block) for one in exits], np.float64),
            full_flops=float(task.costs.full),
            merged_good=None if merged_good is None else merged_good.astype(np.float64),
            merged_flops=None if merged_good is None else float(task.costs.end),
            schedule=schedule,
        )

    every = [scores(kind, found) for kind, found in zip(kinds, good, strict=True)]
    return every[0] if material.classes is None else replace(every[0], agreement=every[1])
