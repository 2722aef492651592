"""From cached features to a routing: heads, temperatures, gates, exits that pay, operating points.

Everything here depends on the seed and on the heads' and gating splits alone, so it is run once for a bundle and
several times, reseeded, for the comparison table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lraee_exporters.graphs.exit import HEAD_INPUTS, HeadInput
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.gates import Gate, fit_gate, gate_features, gate_values
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
from lraee_toolchain.early_exit.operating_points import FAST_DROP, operating_points, points_of_front
from lraee_toolchain.early_exit.risk_control import risk_controlled_point
from lraee_toolchain.early_exit.threshold_search import ExitScores, Point, choose_exits, pareto_front, search

FloatArray = NDArray[np.float32]

PROMISED = "promised"
"""The operating point that `with_promise` adds."""

MOST_EXITS = 5
"""``--exits auto`` keeps at most so many: every exit visited costs time that its FLOPs do not show."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """One split's cached inputs of the routing."""

    features: Features
    """From the tower that will run (INT8)."""
    teacher: Teacher
    """From the float tower."""
    classes: NDArray[np.int64] | None
    """(images,) label index, or None without labels."""

    def rows(self, index: NDArray[np.int64]) -> Material:
        """Some images."""
        classes = None if self.classes is None else self.classes[index]
        return Material(features=self.features.rows(index), teacher=self.teacher.rows(index), classes=classes)

    def good(self, probabilities: FloatArray) -> NDArray[np.bool_]:
        """Whether an answer is right, or without labels agrees with the float tower."""
        wanted = self.classes if self.classes is not None else self.teacher.probabilities.argmax(axis=1)
        return np.asarray(probabilities.argmax(axis=1) == wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """FLOPs of one image, with the labels' similarity included."""

    stem: int
    block: int
    """All tokens of it."""
    last: int
    """The last block, which computes the class token alone behind keys and values."""
    exit: int
    tail: int
    depth: int

    @property
    def full(self) -> int:
        """Stem, all blocks, tail."""
        return self.stem + self.block * (self.depth - 1) + self.last + self.tail

    def up_to(self, block: int) -> int:
        """Stem and blocks with all their tokens, without any exit."""
        return self.stem + self.block * block


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedExit:
    """A head that answers and a gate that judges the answer."""

    block: int
    head: Head
    temperature: float
    gate: Gate
    accuracy: float
    """Of the exit alone on the gating split, 0 to 1; agreement with FP32 without labels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routing:
    """What an export decides about leaving early."""

    exits: tuple[TrainedExit, ...]
    front: tuple[Point, ...]
    """Pareto front on the gating split; thresholds in the order of `exits`."""
    points: dict[str, Point]
    """Operating points by name."""
    full_accuracy: float
    """At full depth on the gating split."""


NO_EXITS = Routing(exits=(), front=(), points={}, full_accuracy=0.0)
"""Of a tower that is only quantized."""


@dataclass(frozen=True, slots=True, eq=False)
class ExitAnswers:
    """What one exit says of a split."""

    probabilities: FloatArray
    """(images, labels)."""
    gate: FloatArray
    """(images,)."""


def train_exits(
    heads: Material,
    gating: Material,
    labels: FloatArray,
    blocks: Sequence[int],
    *,
    reads: HeadInput,
    logit_scale: float,
    config: ExportConfig,
    seed: int,
    int8: bool,
    advance: Callable[[int], None] | None = None,
) -> list[TrainedExit]:
    """Train head, temperature and gate of the exits behind `blocks`, all heads reading the same."""
    inputs = np.stack([head_input(heads.features, block, reads) for block in blocks])
    trained = train_heads(
        inputs,
        heads.classes,
        heads.teacher,
        labels,
        reads=reads,
        logit_scale=logit_scale,
        options=config.heads,
        seed=seed,
        advance=advance,
    )
    finished = [quantize_head(head, inputs[i]) if int8 else head for i, head in enumerate(trained)]
    return [
        _finish_exit(head, gating, labels, block, logit_scale=logit_scale)
        for head, block in zip(finished, blocks, strict=True)
    ]


def _finish_exit(head: Head, gating: Material, labels: FloatArray, block: int, *, logit_scale: float) -> TrainedExit:
    """Fit temperature and gate to what a head answers on the gating split."""
    inputs = head_input(gating.features, block, head.reads)
    logits = label_logits(head_embeddings(head, inputs), labels, logit_scale)
    target = gating.teacher.probabilities
    if gating.classes is not None:
        target = np.eye(len(labels), dtype=np.float32)[gating.classes]
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


def head_inputs(config: ExportConfig, *, class_token: bool) -> Sequence[HeadInput]:
    """What heads are tried with; without a class token only the mean patch token is there."""
    if config.reads != "auto":
        return (config.reads,)
    return HEAD_INPUTS if class_token else ("patch_mean",)


def best_exits(
    heads: Material,
    gating: Material,
    labels: FloatArray,
    blocks: Sequence[int],
    *,
    logit_scale: float,
    config: ExportConfig,
    seed: int,
    int8: bool,
    advance: Callable[[int], None] | None = None,
) -> list[TrainedExit]:
    """Exits whose heads read what `config.reads` says; with ``auto`` each what answers best on the gating split."""
    choices = head_inputs(config, class_token=heads.features.class_token is not None)
    rounds = [
        train_exits(
            heads,
            gating,
            labels,
            blocks,
            reads=reads,
            logit_scale=logit_scale,
            config=config,
            seed=seed,
            int8=int8,
            advance=advance,
        )
        for reads in choices
    ]
    return [max(options, key=lambda trained: trained.accuracy) for options in zip(*rounds, strict=True)]


def answers_of(trained: TrainedExit, features: Features, labels: FloatArray, logit_scale: float) -> ExitAnswers:
    """What an exit answers for cached features, as its ONNX part would."""
    inputs = head_input(features, trained.block, trained.head.reads)
    logits = label_logits(head_embeddings(trained.head, inputs), labels, logit_scale)
    probabilities = softmax(logits / np.float32(trained.temperature))
    values = gate_features(probabilities, features.variance[:, trained.block - 1])
    return ExitAnswers(probabilities, gate_values(trained.gate, values))


def score(
    exits: Sequence[TrainedExit], material: Material, labels: FloatArray, logit_scale: float, costs: Costs
) -> ExitScores:
    """What a set of exits would do for a split."""
    answers = [answers_of(trained, material.features, labels, logit_scale) for trained in exits]
    images = len(material.features.embedding)
    return ExitScores(
        blocks=tuple(trained.block for trained in exits),
        gate=np.stack([a.gate for a in answers], axis=1) if answers else np.zeros((images, 0), np.float32),
        good=np.stack([material.good(a.probabilities) for a in answers], axis=1).astype(np.float64)
        if answers
        else np.zeros((images, 0)),
        full_good=material.good(material.features.probabilities).astype(np.float64),
        exit_flops=np.array([costs.up_to(trained.block) for trained in exits], np.float64),
        visit_flops=np.full(len(exits), costs.exit, np.float64),
        full_flops=float(costs.full),
    )


PAPER_EXITS = (8 / 12, 10 / 12, 11 / 12)
"""Depths of the paper's exits on ViT-B/32, for towers whose weights cannot tell which exits pay."""


def candidates(exits: str | tuple[int, ...], depth: int, *, is_random: bool = False) -> tuple[int, ...]:
    """Blocks that may get an exit: those asked for, or all from a third of the depth to the last but one."""
    if exits == "none":
        return ()
    if isinstance(exits, tuple):
        return tuple(sorted(set(exits)))
    if is_random:
        return tuple(sorted({round(depth * share) for share in PAPER_EXITS}))
    first = max(1, depth // 3) if exits == "auto" else 1
    return tuple(range(first, depth))


def fit_routing(
    heads: Material,
    gating: Material,
    labels: FloatArray,
    *,
    logit_scale: float,
    costs: Costs,
    config: ExportConfig,
    seed: int,
    int8: bool = True,
    blocks: Sequence[int] | None = None,
    is_random: bool = False,
    advance: Callable[[int], None] | None = None,
) -> Routing:
    """Train exits on `heads`, fit gates and thresholds on `gating`.

    Args:
        heads: images that heads learn from.
        gating: images for temperatures, gates, thresholds and the choice of exits.
        labels: (labels, embed_dim) unit text embeddings.
        logit_scale: factor on the cosine.
        costs: FLOPs of the parts.
        config: exits, budget and training options.
        seed: of the heads.
        int8: quantize the heads.
        blocks: candidate exits; None takes those of `candidates`.
        is_random: whether the weights are random, so that no exit can be said to pay.
        advance: called after each epoch of the heads' training.
    """
    trained = best_exits(
        heads,
        gating,
        labels,
        blocks if blocks is not None else candidates(config.exits, costs.depth),
        logit_scale=logit_scale,
        config=config,
        seed=seed,
        int8=int8,
        advance=advance,
    )
    scores = score(trained, gating, labels, logit_scale, costs)
    full = float(scores.full_good.mean())
    if config.exits == "auto" and not is_random:
        drop = config.max_accuracy_drop / 100
        kept = choose_exits(scores, max_drop=drop, min_saved=config.min_flops_saving, most=MOST_EXITS)
        if not kept:  # none pays at `balanced`; those that pay at `fast` are still worth having
            kept = choose_exits(scores, max_drop=drop + FAST_DROP, min_saved=None, most=MOST_EXITS, safe=False)
        trained = [trained[i] for i in kept]
        scores = scores.subset(kept)
    met = search(scores)
    front = pareto_front(met)
    points = operating_points(met, scores, config)
    if not is_random:
        points |= points_of_front(met, points)
    return Routing(exits=tuple(trained), front=tuple(front), points=points, full_accuracy=full)


def with_promise(
    routing: Routing, promise: Material, labels: FloatArray, *, logit_scale: float, costs: Costs, config: ExportConfig
) -> Routing:
    """Add the operating point ``promised``: thresholds that are proved on images that fitted nothing.

    Args:
        routing: exits and gates.
        promise: material of images that took part in none of them.
        labels: (labels, embed_dim) unit text embeddings.
        logit_scale: factor on the cosine.
        costs: FLOPs of the parts.
        config: the promise.
    """
    assert config.promise is not None
    point = risk_controlled_point(
        score(routing.exits, promise, labels, logit_scale, costs),
        epsilon=config.promise / 100,
        delta=1 - config.promise_confidence,
        seed=config.seed,
    )
    return replace(routing, points={**routing.points, PROMISED: point})


def without_unused(routing: Routing) -> Routing:
    """Drop exits that no operating point opens."""
    points = routing.points.values()
    used = [i for i in range(len(routing.exits)) if any(np.isfinite(point.thresholds[i]) for point in points)]
    if len(used) == len(routing.exits):
        return routing

    def keep(point: Point) -> Point:
        return replace(point, thresholds=tuple(point.thresholds[i] for i in used))

    return Routing(
        exits=tuple(routing.exits[i] for i in used),
        front=tuple(keep(p) for p in routing.front if not any(
            np.isfinite(t) for i, t in enumerate(p.thresholds) if i not in used
        )),
        points={name: keep(point) for name, point in routing.points.items()},
        full_accuracy=routing.full_accuracy,
    )  # fmt: skip
