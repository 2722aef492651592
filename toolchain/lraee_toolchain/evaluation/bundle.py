"""Measure the finished bundle on images that no other step has seen, with the runtime that users run.

Every image runs once, through all exits; the policies are replayed over that by the runtime's orchestrator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.bundle.manifest import Manifest
from lraee.policies import Adaptive, ExitAt, Full, Policy
from lraee.policies.base import schedule_of
from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_benchmarks.analysis.right_answers import pack_right
from lraee_toolchain.early_exit.features import Teacher
from lraee_toolchain.early_exit.rows import largest
from lraee_toolchain.evaluation.metrics import (
    FLOAT,
    GIVEN_FLOAT,
    GIVEN_INT8,
    Evaluation,
    ExitShare,
    GivenTower,
    PolicyKind,
    PolicyRow,
    Quadrants,
)
from lraee_toolchain.evaluation.replay import Recording
from lraee_toolchain.parts.runner import BATCH


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One policy over all images."""

    right: NDArray[np.float64]
    """(images,) 1 where the answer is right."""
    flops: NDArray[np.int64]
    """(images,)."""
    exits: NDArray[np.int32]
    """(images,) block of the exit; 0 for images that ran to the end."""


def evaluate_bundle(
    bundle: Path,
    pixels: NDArray[np.uint8],
    classes: NDArray[np.int64],
    teacher: Teacher,
    given: Sequence[Teacher] = (),
) -> Evaluation:
    """Measure top-1, FLOPs and exit shares of every policy of a bundle.

    Args:
        bundle: folder.
        pixels: (images, size, size, 3) uint8.
        classes: (images,) true label index.
        teacher: the float tower's answers.
        given: answers of the tower as given, FP32 and perhaps the bundle's INT8; empty where its trunk was not tuned.
    """
    model = lraee.load(bundle)
    manifest = model.manifest
    policies = list(_policies(manifest))
    schedules = (None, *(one.name for one in manifest.schedules))
    batches: list[list[_Run]] = []
    for start in range(0, len(pixels), BATCH):
        batch = np.ascontiguousarray(pixels[start : start + BATCH])
        recordings = {schedule: Recording(model, batch, schedule) for schedule in schedules}
        batches.append([])
        for *_, policy in policies:
            answers = recordings[schedule_of(policy.bind(manifest))].replay(policy)
            right = answers.probabilities.argmax(axis=1) == classes[start : start + BATCH]
            exits = np.where(answers.early, answers.exit_block, 0).astype(np.int32)
            batches[-1].append(_Run(right.astype(np.float64), model.flops_of_run(answers), exits))
    runs = [_joined(parts) for parts in zip(*batches, strict=True)]
    float_right = _right(teacher, classes)
    given_right = [_right(answers, classes) for answers in given]
    right = dict(zip((GIVEN_FLOAT, GIVEN_INT8), given_right, strict=False)) | {FLOAT: float_right}
    rows = []
    for (kind, point, block, _), run in zip(policies, runs, strict=True):
        rows.append(
            PolicyRow(
                kind=kind,
                point=point,
                block=block,
                accuracy=mean_over_images(run.right),
                difference_to_full=mean_over_images(run.right - runs[0].right),
                difference_to_float=mean_over_images(run.right - float_right),
                difference_to_given=mean_over_images(run.right - given_right[0]) if given_right else None,
                flops=float(run.flops.mean()),
                flops_saved=float(1 - run.flops.mean() / manifest.full_flops),
                exit_shares=_shares(run.exits),
                quadrants=_quadrants(run.right, runs[0].right),
            )
        )
        right[rows[-1].spec] = run.right
    return Evaluation(
        images=len(pixels),
        full_flops=manifest.full_flops,
        float_accuracy=mean_over_images(float_right),
        given=_given_tower(*given_right, tuned=float_right) if given_right else None,
        rows=tuple(rows),
        right={name: pack_right(values) for name, values in right.items()},
    )


def _given_tower(
    given: NDArray[np.float64], quantized: NDArray[np.float64] | None = None, *, tuned: NDArray[np.float64]
) -> GivenTower:
    """Describe full depth of the tower as given, from what is right in FP32 and perhaps in INT8."""
    return GivenTower(
        accuracy=mean_over_images(given),
        float_difference=mean_over_images(tuned - given),
        quantized=None if quantized is None else mean_over_images(quantized),
        quantized_difference=None if quantized is None else mean_over_images(quantized - given),
    )


def _right(answers: Teacher, classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(images,) 1 where a tower at full depth is right."""
    return np.asarray(largest(answers.probabilities) == classes, np.float64)


def _policies(manifest: Manifest) -> Iterator[tuple[PolicyKind, str | None, int | None, Policy]]:
    """Give kind, name, block and policy: full depth, with merged tokens, operating points, exits."""
    yield "full", None, None, Full()
    for schedule in manifest.schedules:
        yield "merged", schedule.name, None, Full(schedule.name)
    for point in manifest.operating_points:
        yield "adaptive", point.name, None, Adaptive(point.name)
    for exit in manifest.exits:
        yield "exit", None, exit.block, ExitAt(exit.block)


def _joined(parts: Sequence[_Run]) -> _Run:
    """Join the batches of one policy."""
    return _Run(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Run.__slots__))


def _shares(exits: NDArray[np.int32]) -> tuple[ExitShare, ...]:
    """Shares of the images by place, by depth; those that ran to the end come last."""
    blocks, counts = np.unique(exits, return_counts=True)
    places = sorted(zip(blocks.tolist(), counts.tolist(), strict=True), key=lambda place: place[0] or np.inf)
    return tuple(ExitShare(block=block or None, share=count / len(exits)) for block, count in places)


def _quadrants(right: NDArray[np.float64], full: NDArray[np.float64]) -> Quadrants:
    return Quadrants(
        both_right=float((right * full).sum()),
        rescue=float((right * (1 - full)).sum()),
        loss=float(((1 - right) * full).sum()),
        both_wrong=float(((1 - right) * (1 - full)).sum()),
    )
