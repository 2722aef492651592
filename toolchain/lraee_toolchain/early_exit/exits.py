"""An exit from training to its answers: a head, a temperature, and a gate that judges the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lraee.bundle.manifest import GateInfo
from lraee_exporters.graphs.exit import HEAD_INPUTS, ExitWeights, HeadInput
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.early_exit.features import Features
from lraee_toolchain.early_exit.gates import fit_gate, gate_features, gate_values
from lraee_toolchain.early_exit.heads import (
    Head,
    fit_temperature,
    head_embeddings,
    head_input,
    label_logits,
    quantize_head,
    softmax,
    train_heads,
)
from lraee_toolchain.early_exit.outcomes import ExitScores
from lraee_toolchain.early_exit.task import ExitTask, FloatArray, Material

PAPER_EXITS = (8 / 12, 10 / 12, 11 / 12)
"""Depths of the paper's exits on ViT-B/32, for towers whose weights cannot tell which exits pay."""


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
        )


@dataclass(frozen=True, slots=True, eq=False)
class ExitAnswers:
    """What one exit says of a split."""

    probabilities: FloatArray
    """(images, labels)."""
    gate: FloatArray
    """(images,)."""


def candidates(exits: str | tuple[int, ...], depth: int, *, is_random: bool = False) -> tuple[int, ...]:
    """List the blocks that may get an exit: those asked for, or all from a third of the depth to the last but one."""
    if exits == "none":
        return ()
    if isinstance(exits, tuple):
        return tuple(sorted(set(exits)))
    if is_random:
        return tuple(sorted({round(depth * share) for share in PAPER_EXITS}))
    first = max(1, depth // 3) if exits == "auto" else 1
    return tuple(range(first, depth))


def head_inputs(config: ExportConfig, *, class_token: bool) -> Sequence[HeadInput]:
    """List the inputs that heads are tried with; without a class token there is only the mean patch token."""
    if config.reads != "auto":
        return (config.reads,)
    return HEAD_INPUTS if class_token else ("patch_mean",)


def best_exits(
    task: ExitTask,
    heads: Material,
    gating: Material,
    blocks: Sequence[int],
    *,
    advance: Callable[[int], None] | None = None,
) -> list[TrainedExit]:
    """Train exits whose heads read what the configuration says.

    With ``reads=auto`` each exit reads what answers best on the gating split.
    """
    choices = head_inputs(task.config, class_token=heads.features.class_token is not None)
    rounds = [train_exits(task, heads, gating, blocks, reads=reads, advance=advance) for reads in choices]
    return [max(options, key=lambda trained: trained.accuracy) for options in zip(*rounds, strict=True)]


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
    inputs = np.stack([head_input(heads.features, block, reads) for block in blocks])
    trained = train_heads(task, inputs, heads, reads=reads, advance=advance)
    if task.int8:
        trained = [quantize_head(head, inputs[i]) for i, head in enumerate(trained)]
    return [_finish_exit(task, head, gating, block) for head, block in zip(trained, blocks, strict=True)]


def _finish_exit(task: ExitTask, head: Head, gating: Material, block: int) -> TrainedExit:
    """Fit temperature and gate to what a head answers on the gating split."""
    inputs = head_input(gating.features, block, head.reads)
    logits = label_logits(head_embeddings(head, inputs), task.labels, task.logit_scale)
    target = gating.teacher.probabilities
    if gating.classes is not None:
        target = np.eye(len(task.labels), dtype=np.float32)[gating.classes]
    temperature = fit_temperature(logits, target)
    probabilities = softmax(logits / np.float32(temperature))
    features = gate_features(probabilities, gating.features.variance[:, block - 1])
    good = gating.good(probabilities)
    return TrainedExit(
        block=block,
        head=head,
        temperature=temperature,
        gate=fit_gate(features, good),
        accuracy=float(good.mean()),
    )


def answers_of(task: ExitTask, trained: TrainedExit, features: Features) -> ExitAnswers:
    """Compute what an exit answers for cached features, as its ONNX part would."""
    inputs = head_input(features, trained.block, trained.head.reads)
    logits = label_logits(head_embeddings(trained.head, inputs), task.labels, task.logit_scale)
    probabilities = softmax(logits / np.float32(trained.temperature))
    values = gate_features(probabilities, features.variance[:, trained.block - 1])
    return ExitAnswers(probabilities, gate_values(trained.gate, values))


def score(task: ExitTask, exits: Sequence[TrainedExit], material: Material) -> ExitScores:
    """Compute what a set of exits would do for a split, and what they cost."""
    answers = [answers_of(task, trained, material.features) for trained in exits]
    none = np.zeros((len(material.features.embedding), 0))
    return ExitScores(
        blocks=tuple(trained.block for trained in exits),
        gate=np.hstack([none.astype(np.float32), *(a.gate[:, None] for a in answers)]),
        good=np.hstack([none, *(material.good(a.probabilities)[:, None] for a in answers)]),
        full_good=material.good(material.features.probabilities).astype(np.float64),
        exit_flops=np.array([task.costs.up_to(trained.block) for trained in exits], np.float64),
        visit_flops=np.full(len(exits), task.costs.exit, np.float64),
        full_flops=float(task.costs.full),
    )
